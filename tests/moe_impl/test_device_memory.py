"""Which memory of the caching allocator is filled with NaN: all that is free, and nothing else (no GPU needed)."""

import torch

from moe_impl.device_memory import free_pieces


def _segment(address: int, *blocks: tuple[str, int], device: int = 0, pool: tuple[int, int] = (0, 0)) -> dict:  # type: ignore[type-arg]
    return {
        "address": address,
        "device": device,
        "segment_pool_id": pool,
        "blocks": [{"state": state, "size": size} for state, size in blocks],
    }


def test_free_pieces_lie_between_live_ones_and_are_found_by_their_address() -> None:
    segments = [
        _segment(1000, ("active_allocated", 512), ("inactive", 1024), ("active_pending_free", 512), ("inactive", 2048)),
        _segment(9000, ("inactive", 256)),
    ]
    assert free_pieces(segments, torch.device("cuda", 0)) == [(1512, 1024), (3048, 2048), (9000, 256)]


def test_other_devices_and_the_pools_of_live_graphs_are_left_alone() -> None:
    segments = [
        _segment(1000, ("inactive", 512), device=1),
        _segment(5000, ("inactive", 512), pool=(0, 3)),
    ]
    assert free_pieces(segments, torch.device("cuda", 0)) == []
