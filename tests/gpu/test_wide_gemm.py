"""The wide GEMM on Hopper: the plain kernel's bits, whatever the groups, the layout and the number of programs."""

from types import ModuleType
from typing import Any

import pytest
import torch
from no_wait import no_wait
from torch import Tensor

from moe_impl.carve_out import leaving_free
from moe_impl.nvfp4 import NvFp4Tensor

pytestmark = pytest.mark.gpu

RAGGED = (0, 1, 300, 64, 131, 65, 128, 0)
"""Pairs of experts: none, less than half a tile, half a tile, one more, whole tiles."""


class Launches:
    """The wide kernel, and the grids it was launched with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.grids.append(grid)
        return self.kernel[grid]


@pytest.fixture(autouse=True)
def hopper() -> None:
    from moe_impl.kernels.nvfp4_gemm import HOPPER, gluon_known

    if torch.cuda.get_device_capability()[0] != HOPPER or not gluon_known():
        pytest.skip("needs Hopper's wgmma and a known Gluon")


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    recorded = Launches(wide_module().nvfp4_wide_gemm_kernel)
    monkeypatch.setattr(wide_module(), "nvfp4_wide_gemm_kernel", recorded)
    return recorded


def drawn(L: int, N: int, K: int) -> object:
    from moe_impl.kernels.nvfp4_fragments import repack

    generator = torch.Generator("cuda").manual_seed(3)
    dense = torch.randn(L, N, K, generator=generator, device="cuda").bfloat16()
    weights = NvFp4Tensor.from_dense(dense)
    scales = weights.global_scale * torch.arange(1, L + 1, device="cuda")
    return repack(NvFp4Tensor(weights.packed, weights.scales, scales))


def drawn_x(rows: int, K: int) -> Tensor:
    return torch.randn(rows, K, generator=torch.Generator("cuda").manual_seed(4), device="cuda").bfloat16()


def wide_module() -> ModuleType:
    from moe_impl.kernels import nvfp4_wide_gemm

    return nvfp4_wide_gemm


def wide(x: Tensor, weights: object, ends: Tensor, room: int | None = None, load: float = 1000) -> Tensor:
    return wide_module().nvfp4_wide_gemm(x, weights, ends, load, room)  # type: ignore[no-any-return]


def plain(x: Tensor, weights: object, ends: Tensor, room: int | None = None) -> Tensor:
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for

    return nvfp4_grouped_gemm(x, weights, ends, tile_for(1000), room)  # type: ignore[arg-type]


@pytest.mark.parametrize(("N", "K"), [(512, 256), (384, 1024), (640, 2048), (100, 64)])
def test_ragged_groups_get_the_plain_kernels_bits(N: int, K: int) -> None:
    """N is no multiple of the tile's 256, K as few steps as there are; rows past the last pair are NaN."""
    weights, ends = drawn(len(RAGGED), N, K), torch.tensor(RAGGED, device="cuda").cumsum(0).int()
    x = drawn_x(sum(RAGGED) + 40, K)
    x[sum(RAGGED) :] = torch.nan
    found, expected = wide(x, weights, ends), plain(x, weights, ends)
    assert torch.equal(found[: ends[-1]], expected[: ends[-1]])


def test_equals_the_bf16_grouped_matmul_on_decoded_weights() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.nvfp4 import decode_bf16

    generator = torch.Generator("cuda").manual_seed(5)
    weights = NvFp4Tensor.from_dense(torch.randn(4, 512, 1024, generator=generator, device="cuda").bfloat16())
    unscaled = NvFp4Tensor(weights.packed, weights.scales, torch.ones_like(weights.global_scale))
    ends, x = torch.tensor([200, 200, 500, 777], device="cuda").int(), drawn_x(777, 1024)
    dense = decode_bf16(weights.packed, weights.scales)
    assert torch.equal(wide(x, repack(unscaled), ends), torch._grouped_mm(x, dense.transpose(1, 2), offs=ends))


def test_per_expert_rooms_get_the_plain_kernels_bits() -> None:
    room, K = 384, 1024
    weights, x = drawn(len(RAGGED), 512, K), drawn_x(384 * len(RAGGED), K)
    counts = torch.tensor(RAGGED, device="cuda")
    ends = (torch.arange(len(RAGGED), device="cuda") * room + counts).int()
    used = (torch.arange(room, device="cuda") < counts[:, None]).flatten()
    assert torch.equal(wide(x, weights, ends, room)[used], plain(x, weights, ends, room)[used])


def test_far_more_room_than_pairs_is_no_work_and_no_wait() -> None:
    """Far more expected than came: most programs find no tile; pairs that the device counts, none at all too."""
    weights, x = drawn(4, 512, 1024), drawn_x(100_000, 1024)
    load = 25_000
    for counts in ((0, 300, 0, 17), (0, 0, 0, 0)):
        ends = torch.tensor(counts, device="cuda").cumsum(0).int()
        expected = plain(x, weights, ends)
        wide(x, weights, ends, load=load)
        with no_wait():
            found = wide(x, weights, ends, load=load)
        assert torch.equal(found[: sum(counts)], expected[: sum(counts)])
    assert wide(x[:0], weights, ends).shape == (0, 512)


@pytest.mark.parametrize(
    ("num_sms", "program_steps", "load", "programs"),
    [
        (8, 16, 1000, 480),  # 6 take two tiles, 378 one, 96 none
        (8, 32, 1000, 240),  # 192 take two or three, 48 none
        (8, 16, 100, 56),  # fewer than the tiles that came want: six or seven
        (2, 10**6, 1000, 2),  # 195
    ],
)
def test_the_number_of_programs_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, launches: Launches, num_sms: int, program_steps: int, load: float, programs: int
) -> None:
    """390 tiles of 16 steps, 480 expected of a load of 1000: as of a small GPU, so an SM runs several in turn."""
    weights, x = drawn(4, 15 * 256, 1024), drawn_x(5000, 1024)
    ends = torch.tensor([900, 1700, 1764, 3000], device="cuda").int()
    expected = plain(x, weights, ends)
    monkeypatch.setattr(wide_module(), "PROGRAM_STEPS", program_steps)
    monkeypatch.setattr(wide_module(), "sm_count", lambda tensor: num_sms)
    found = wide(x, weights, ends, load=load)
    assert launches.grids == [(programs,)]
    assert torch.equal(found[: ends[-1]], expected[: ends[-1]])


def test_many_programs_an_sm_get_the_plain_kernels_bits(monkeypatch: pytest.MonkeyPatch, launches: Launches) -> None:
    """8448 tiles of 16 steps, about one a program: 64 programs for each SM of an H100."""
    counts = torch.tensor([16896, 16796, 16896, 16801], device="cuda")
    weights, x, ends = drawn(4, 4096, 1024), drawn_x(int(counts.sum()), 1024), counts.cumsum(0).int()
    monkeypatch.setattr(wide_module(), "PROGRAM_STEPS", 16)
    found = wide(x, weights, ends, load=16850)
    num_sms = torch.cuda.get_device_properties(x.device).multi_processor_count
    assert launches.grids == [(num_sms * (8448 // num_sms),)]
    assert torch.equal(found, plain(x, weights, ends))


def test_no_step_overwrites_what_another_warp_still_reads() -> None:
    """A race shows as other bits or NaN, in one run of many: a long K, the same rows anew."""
    weights, rows = drawn(2, 2048, 4096), drawn_x(512, 4096).view(2, 256, 4096)
    x, ends = rows.repeat(1, 4, 1).view(2048, 4096), torch.tensor([1024, 2048], device="cuda").int()
    for _ in range(20):
        found = wide(x, weights, ends).view(2, 4, 256, 2048)
        assert not found.isnan().any()
        assert all(torch.equal(found[:, 0], found[:, again]) for again in range(1, 4))


def test_a_captured_gemm_reads_the_counts_of_each_replay() -> None:
    weights, x = drawn(4, 512, 1024), drawn_x(1000, 1024)
    ends = torch.tensor([100, 200, 300, 400], device="cuda").int()
    wide(x, weights, ends)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = wide(x, weights, ends)
    for counts in ((0, 700, 0, 300), (1, 0, 64, 65)):
        ends.copy_(torch.tensor(counts).cumsum(0))
        graph.replay()
        expected = plain(x, weights, ends)
        assert torch.equal(found[: sum(counts)], expected[: sum(counts)])


def test_every_load_gets_the_same_bits_by_whichever_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A micro-batch may fall to the one kernel and the whole batch to the other."""
    from moe_impl.kernels import nvfp4_gemm as module

    weights, x = drawn(32, 2048, 512), drawn_x(32 * 150, 512)
    ends = (torch.arange(1, 33, device="cuda") * 150).int()
    loads, chosen = (2, 20, 50, 100, 128, 1000), module.takes_wide
    asked = [chosen(x, weights, load) for load in loads]  # type: ignore[arg-type]
    assert asked == [False, False, False, False, True, True]
    found = [module.nvfp4_gemm(x, weights, ends, load) for load in loads]  # type: ignore[arg-type]
    with leaving_free(20):
        found.append(module.nvfp4_gemm(x, weights, ends, 1000))  # type: ignore[arg-type]
    assert all(torch.equal(found[0], other) for other in found[1:])
