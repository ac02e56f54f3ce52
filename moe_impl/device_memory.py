"""The CUDA caching allocator's memory by address: what no tensor holds now, and the next one may be given."""

from typing import Any

import torch

NAN_BYTE = 0xFF
"""Of every byte: a bf16 and an fp32 NaN, and an index of -1."""
SMALL_BLOCK_BYTES, SMALL_BLOCKS = 1 << 20, 16
"""What torch's allocator gives smaller tensors from, and more of them than a case's index tensors need."""


class _Bytes:
    """Device memory by its address, for torch to look at."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 2,
        }


def reserve(num_bytes: int, device: torch.device) -> None:
    """Make the allocator keep memory for the current stream: one large block, and small ones, which are kept apart."""
    sizes = (num_bytes, *[SMALL_BLOCK_BYTES] * SMALL_BLOCKS)
    blocks = [torch.empty(size, dtype=torch.uint8, device=device) for size in sizes]
    del blocks  # all at once, so that none is a part of another


def fill_with_nan(address: int, size: int, device: torch.device) -> None:
    """``size`` bytes from ``address`` on, by the current stream. They must be mapped, and no live tensor's."""
    torch.as_tensor(_Bytes(address, size), device=device).fill_(NAN_BYTE)


def fill_free_with_nan(device: torch.device) -> None:
    """All that the allocator holds and no tensor does, whatever stream it is kept for; the device must be idle."""
    for address, size in free_pieces(torch.cuda.memory_snapshot(), device):
        fill_with_nan(address, size, device)


def free_pieces(segments: list[dict[str, Any]], device: torch.device) -> list[tuple[int, int]]:
    """(address, bytes) of each free piece, of ``torch.cuda.memory_snapshot()``; pools of live graphs are left alone."""
    found = []
    for segment in segments:
        if segment["device"] != device.index or tuple(segment["segment_pool_id"]) != (0, 0):
            continue
        address = segment["address"]
        for block in segment["blocks"]:
            if block["state"] == "inactive":
                found.append((address, block["size"]))
            address += block["size"]
    return found
