"""What the compiler makes of the wide GEMM for Hopper: what its speed and its bits rely on."""

import functools
import re
from typing import Any

import pytest
from compiled_apart import compiled_by

pytest.importorskip("triton")

from moe_impl.kernels.nvfp4_gemm import GLUON_SINCE, GLUON_UNTIL, gluon_known

pytestmark = pytest.mark.skipif(
    not gluon_known(), reason=f"Gluon is that of Triton {GLUON_SINCE} to {GLUON_UNTIL} elsewhere"
)

LAYOUTS = ("packed", "per_expert")
SHARED_BYTES = 227 * 1024
"""Of a program, at most, on Hopper."""


@functools.cache
def compiled() -> dict[str, dict[str, Any]]:
    """Case of the script -> PTX and resources."""
    return compiled_by("compile_wide_gemm.py")


def steps(layout: str) -> list[str]:
    """The bodies of the loops that multiply: from the wait for a step's copies to the wait for its products."""
    ptx: str = compiled()[layout]["ptx"]
    ends = [found.start() for found in re.finditer(r"wgmma\.wait_group", ptx)]
    return [ptx[ptx.rindex("mbarrier.try_wait", 0, end) : end] for end in ends]


@pytest.mark.parametrize("layout", [*LAYOUTS, "most_experts"])
def test_warps_that_multiply_take_the_registers_of_the_warp_that_copies(layout: str) -> None:
    """And no partition spills."""
    ptx = compiled()[layout]["ptx"]
    assert re.search(r"^\.reqntid 384\b", ptx, re.MULTILINE)
    asked = re.findall(r"setmaxnreg\.(inc|dec)\.sync\.aligned\.u32\s+(\d+)", ptx)
    assert {("dec", "240"), ("inc", "240"), ("dec", "24")} <= set(asked)
    assert compiled()[layout]["shared"] <= SHARED_BYTES
    found = compiled()[layout]["resources"]
    if found is None:
        pytest.skip("this triton ships no cuobjdump")
    assert (found["STACK"], found["LOCAL"]) == (0, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_half_has_a_loop_for_whole_tiles_and_one_for_the_last_pairs(layout: str) -> None:
    widths = [set(re.findall(r"wgmma\.mma_async\S*m64n(\d+)k16\.f32\.bf16\.bf16", body)) for body in steps(layout)]
    assert sorted(widths, key=str) == [{"128"}, {"128"}, {"64"}, {"64"}]
    assert all(body.count("wgmma.mma_async") == 8 for body in steps(layout)), "128 rows, 64 columns: 2 x 4"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_expanded_in_registers_and_nothing_moves_between_lanes(layout: str) -> None:
    for body in steps(layout):
        assert not re.search(r"st\.shared|stmatrix|ldmatrix|shfl", body)
        products = set(re.findall(r"fma\.rn\.bf16x2 (%r\d+),", body))
        operands = re.findall(r"wgmma\.mma_async\S* \{[^}]*\}, \{([^}]*)\}", body)
        copied = dict(re.findall(r"mov\.b32 (%r\d+), (%r\d+);", body))
        assert {copied.get(register, register) for operand in operands for register in operand.split(",")} == products
        assert len(products) == 8 * 4
        assert len(re.findall(r"ld\.shared\.v4\.b32", body)) == 2, "32 bytes of codes a lane"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_wgmma_runs_on_into_a_step_that_overwrites_its_weights(layout: str) -> None:
    waits = re.findall(r"wgmma\.wait_group\.sync\.aligned (\d+)", compiled()[layout]["ptx"])
    assert waits == ["0"] * 4
    assert all("bra" not in body[body.rindex("wgmma.mma_async") :] for body in steps(layout)), "in the step it began"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_warp_copies_x_codes_and_scales_by_tma(layout: str) -> None:
    ptx = compiled()[layout]["ptx"]
    assert len(re.findall(r"cp\.async\.bulk\.tensor", ptx)) == 3
    expected = re.findall(r"mbarrier\.arrive\.expect_tx\S* _, \[%r\d+\], (\d+)", ptx)
    assert expected == [str(128 * 64 * 2 + 256 * 64 // 2 + 256 * 64 // 16)]
    plain = [line for line in ptx.splitlines() if "ld.global" in line]
    assert all(re.search(r"ld\.global\.b32", line) for line in plain), f"ends and the tensor scale alone: {plain}"
