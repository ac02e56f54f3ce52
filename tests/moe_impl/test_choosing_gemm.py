"""Which kernel multiplies by NVFP4 weights, and how the wide one shares its tiles out among programs."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import interpreted
import pytest
import torch

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402

from moe_impl.carve_out import leaving_free  # noqa: E402
from moe_impl.kernels import nvfp4_gemm as module  # noqa: E402
from moe_impl.kernels.nvfp4_fragments import RepackedWeights  # noqa: E402
from moe_impl.kernels.pair_places import expected_tiles, program_grid, program_tiles  # noqa: E402

pytestmark = interpreted.WHERE

GPU = torch.device("cuda", 0)
SMS, PROGRAM_STEPS = 4, 128


@triton.jit
def visit_kernel(visited, tiles, steps, num_sms, program_steps):
    """Each tile counts its visits, and 1000 times the program."""
    first, stride = program_tiles(tiles, steps, num_sms, program_steps)
    for tile in range(first, tiles, stride):
        tl.store(visited + tile, tl.load(visited + tile) + 1 + 1000 * tl.program_id(0))


@dataclass(frozen=True)
class OnGpu:
    """What the choice reads of a tensor."""

    is_cuda: bool = True
    device: torch.device = GPU


class Launches:
    """A kernel that only tells its grids."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        self.grids.append(grid)
        return lambda *arguments, **options: None


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A GPU of 132 SMs with wgmma, and a Triton whose Gluon is known."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(module, "sm_count", lambda tensor: 132)
    monkeypatch.setattr(module.triton, "__version__", "3.6.0+git1234")
    module.gluon_known.cache_clear()
    yield monkeypatch
    module.gluon_known.cache_clear()


def takes_wide(pairs_per_expert: float = 512, experts: int = 32, N: int = 4096, x: OnGpu | None = None) -> bool:
    codes = torch.empty(experts, -(-N // 128) * 2, 2, 512, dtype=torch.int32, device="meta")
    weights = RepackedWeights(codes, codes, codes, N)
    return module.takes_wide(x or OnGpu(), weights, pairs_per_expert)  # type: ignore[arg-type]


@pytest.mark.usefixtures("hopper")
def test_the_wide_kernel_takes_many_pairs_an_expert_on_hopper() -> None:
    assert takes_wide()
    assert takes_wide(128)
    assert not takes_wide(127.5)
    assert not takes_wide(x=OnGpu(is_cuda=False))


@pytest.mark.usefixtures("hopper")
def test_the_wide_kernel_takes_no_gemm_with_fewer_tiles_than_sms() -> None:
    """Its tiles are twice those of the plain kernel: half the SMs would have none."""
    assert not takes_wide(128, experts=8)
    assert takes_wide(129, experts=8), "two row tiles an expert, 256 tiles"


@pytest.mark.usefixtures("hopper")
def test_the_wide_kernel_takes_no_more_experts_than_its_registers_hold() -> None:
    assert takes_wide(experts=128)
    assert not takes_wide(experts=129)


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (10, 0), (12, 0)])
def test_a_gpu_without_wgmma_gets_the_plain_kernel(hopper: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    hopper.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert not takes_wide()


@pytest.mark.parametrize(("version", "known"), [("3.5.1", False), ("3.6.0", True), ("3.9.0", True), ("3.10.0", False)])
def test_an_unknown_gluon_gets_the_plain_kernel(hopper: pytest.MonkeyPatch, version: str, known: bool) -> None:
    hopper.setattr(module.triton, "__version__", version)
    module.gluon_known.cache_clear()
    assert takes_wide() == known


@pytest.mark.usefixtures("hopper")
def test_a_gemm_that_leaves_sms_free_is_the_plain_kernels() -> None:
    with leaving_free(20):
        assert not takes_wide()
    assert takes_wide()


@pytest.mark.parametrize("chosen", [True, False])
def test_the_chosen_kernel_is_launched_with_the_same_pairs(monkeypatch: pytest.MonkeyPatch, chosen: bool) -> None:
    called: list[tuple[object, ...]] = []
    monkeypatch.setattr(module, "takes_wide", lambda *arguments: chosen)
    wide = SimpleNamespace(nvfp4_wide_gemm=lambda *arguments: called.append(("wide", *arguments)))
    monkeypatch.setitem(sys.modules, "moe_impl.kernels.nvfp4_wide_gemm", wide)
    monkeypatch.setattr(module, "nvfp4_grouped_gemm", lambda *arguments: called.append(("plain", *arguments)))
    module.nvfp4_gemm("x", "weights", "ends", 512.0, 64)  # type: ignore[arg-type]
    plain = ("plain", "x", "weights", "ends", module.tile_for(512.0), 64)
    assert called == [("wide", "x", "weights", "ends", 512.0, 64) if chosen else plain]


@pytest.mark.parametrize(
    ("tiles", "steps", "programs", "used"),
    [(0, 4, 8, 4), (3, 4, 3, 3), (40, 4, 8, 4), (40, 32, 64, 8), (41, 32, 64, 8), (300, 16, 64, 36), (300, 16, 9, 9)],
)
def test_every_tile_is_one_programs_and_programs_are_a_multiple_of_the_sms(
    tiles: int, steps: int, programs: int, used: int
) -> None:
    """Of 4 SMs and programs of 128 steps, or as many programs as were started."""
    visited = torch.zeros(tiles + 1, dtype=torch.int32)
    visit_kernel[(programs,)](visited, tiles, steps, SMS, PROGRAM_STEPS)
    assert (visited[:tiles] % 1000).tolist() == [1] * tiles
    per_program = torch.bincount(visited[:tiles] // 1000, minlength=programs)
    assert int((per_program > 0).sum()) == min(used, tiles)
    assert visited[tiles] == 0
    busy = per_program[per_program > 0]
    assert not len(busy) or int(busy.max() - busy.min()) <= 1


@pytest.mark.parametrize(
    ("expected", "most", "programs"),
    [
        (4096, 40_960, 27 * 132),  # DeepSeek-V3's gate and up of 32 experts and 1024 pairs each, in room for 10 times
        (4096, 4000, 27 * 132),
        (4096, 3000, 3000),  # never over the worst case
        (100, 40_960, 132),  # never fewer than SMs, if so many tiles are possible
        (0, 40_960, 132),
        (100, 90, 90),
    ],
)
def test_programs_are_those_that_the_expected_tiles_want(expected: int, most: int, programs: int) -> None:
    """Of 132 SMs, tiles of 112 steps and programs of 128: none for tiles that are only possible."""
    assert program_grid(expected, most, 112, 132, 128) == programs


def test_the_room_of_the_worst_case_starts_no_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the wide GEMM launches itself, here on a GPU of 4 SMs: 40 steps a tile, 8 tiles expected."""
    if not module.gluon_known():
        pytest.skip("no Gluon that the wide kernel is written in")
    from moe_impl.kernels import nvfp4_wide_gemm as wide

    launches = Launches()
    monkeypatch.setattr(wide, "nvfp4_wide_gemm_kernel", launches)
    codes = torch.empty(2, 8, 40, 512, dtype=torch.int32)
    weights = RepackedWeights(codes, torch.empty(2, 8, 40, 64, dtype=torch.int32), torch.ones(2), 512)
    ends = torch.tensor([200, 400])
    for rows, pairs_per_expert in ((400, 200), (16_384, 200), (16_384, 8192)):
        x = torch.empty(rows, 40 * 64, dtype=torch.bfloat16)
        assert wide.nvfp4_wide_gemm(x, weights, ends, pairs_per_expert).shape == (rows, 512)
    # 8 tiles have fewer steps than a program for each SM; 256 tiles, 80 programs of them.
    assert launches.grids == [(4,), (4,), (80,)]
    assert expected_tiles(2, 200, 512, 128, 256) == 8


@pytest.mark.parametrize(("programs", "per_program"), [(4, [10] * 4), (8, [5] * 8), (64, [5] * 8 + [0] * 56)])
def test_more_tiles_than_expected_make_programs_longer(programs: int, per_program: list[int]) -> None:
    """40 tiles of 32 steps want 8 programs of 128 steps on 4 SMs: started are fewer, as many, or more."""
    visited = torch.zeros(40, dtype=torch.int32)
    visit_kernel[(programs,)](visited, 40, 32, SMS, PROGRAM_STEPS)
    assert (visited % 1000).tolist() == [1] * 40
    assert torch.bincount(visited // 1000, minlength=programs).tolist() == per_program
