"""Which programs compute where SMs are left free, in Triton's interpreter: a program's number stands for its SM."""

import interpreted
import pytest
import torch

triton = pytest.importorskip("triton")
tl = triton.language

from moe_impl.carve_out import leaving_free  # noqa: E402
from moe_impl.kernels import nvfp4_grouped_gemm as module  # noqa: E402
from moe_impl.kernels.free_sms import computes_here, new_sms, programs  # noqa: E402
from moe_impl.kernels.nvfp4_fragments import repack  # noqa: E402
from moe_impl.nvfp4 import NvFp4Tensor  # noqa: E402

pytestmark = [interpreted.WHERE, pytest.mark.usefixtures("uninitialised_memory_is_nan")]

COUNTS = (0, 1, 37, 0, 16)


@triton.jit
def ask(sms, allowed, answers):  # type: ignore[no-untyped-def]
    for turn in range(2):  # a second program on the same SM
        answer = computes_here(sms, allowed, True)
        tl.store(answers + 2 * tl.program_id(0) + turn, answer.to(tl.int32))


@pytest.mark.parametrize("allowed", [1, 3, 6, 9])
def test_the_first_sms_that_turn_up_compute_and_no_other(allowed: int) -> None:
    sms, answers = new_sms(torch.device("cpu")), torch.full((6, 2), -1, dtype=torch.int32)
    ask[(6,)](sms, allowed, answers)
    assert answers.tolist() == [[1, 1] if sm < allowed else [0, 0] for sm in range(6)]
    assert sms[:2].tolist() == [0, 6], "no tile was taken; each SM was counted once"


@pytest.mark.parametrize("free", [1, 2, 3])
@pytest.mark.parametrize("expert_stride", [None, 40])
def test_the_gemm_takes_every_tile_once_and_gives_the_same_bits(
    free: int, expert_stride: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[torch.Tensor] = []
    monkeypatch.setattr(module, "new_sms", lambda device: made.append(new_sms(device)) or made[-1])
    generator = torch.Generator().manual_seed(1)
    packed = repack(NvFp4Tensor.from_dense(torch.randn(len(COUNTS), 140, 128, generator=generator)))
    x = torch.randn(5 * 40, 128, generator=generator).bfloat16()
    starts = [40 * e for e in range(5)] if expert_stride else torch.tensor((0, *COUNTS[:-1])).cumsum(0).tolist()
    ends = torch.tensor([start + count for start, count in zip(starts, COUNTS, strict=True)], dtype=torch.int32)
    tile = module.Tile(16, 64, 128, num_warps=4, num_stages=1)
    plain = module.nvfp4_grouped_gemm(x, packed, ends, tile, expert_stride)
    assert not made, "with no SM left free nothing is allocated"
    with leaving_free(free):
        found = module.nvfp4_grouped_gemm(x, packed, ends, tile, expert_stride)
    for start, end in zip(starts, ends.tolist(), strict=True):
        assert torch.equal(found[start:end], plain[start:end])
        assert not found[start:end].isnan().any()
    tiles = 3 * sum(-(-count // 16) for count in COUNTS)
    computing = 4 - free  # of the interpreter's SMs; each program that computes ends on a tile that is not there
    assert made[0][0] == tiles + computing


def test_to_leave_all_sms_free_is_refused() -> None:
    packed = repack(NvFp4Tensor.from_dense(torch.ones(1, 16, 64)))
    with pytest.raises(ValueError, match="4 of 4 SMs are to be left free: none computes"), leaving_free(4):
        module.nvfp4_grouped_gemm(
            torch.zeros(4, 64).bfloat16(), packed, torch.tensor([4]).int(), module.Tile(16, 64, 64, 4, 1)
        )


def test_programs_fill_the_sms_that_compute_though_some_end_at_once() -> None:
    assert [programs(132, warps) for warps in (4, 8, 16)] == [4 * 132, 2 * 132, 2 * 132]
