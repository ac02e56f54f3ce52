"""Nsight Compute on this GPU: every compute stage's kernels of T1 and T2s are there, with counters that make sense."""

from pathlib import Path

import pytest

from bench.cases import Case, with_companions
from bench.doctor import tools
from bench.errors import BenchError
from bench.profiling import ncu
from bench.profiling.kernels import load
from bench.profiling.request import Request
from moe_impl.links import LOCAL
from moe_impl.options import Variant, Workload
from moe_impl.shapes import ModelShape

pytestmark = pytest.mark.gpu

WORKLOAD = Workload(ModelShape(1024, 512, 16, 4), ep_size=4, layers=2, tokens=256, precision="nvfp4-w4a16")
CASE = Case(WORKLOAD, LOCAL, with_companions(Variant(experts="triton")))


def test_kernels_are_told_by_stage_with_their_counters(tmp_path: Path) -> None:
    if tools.find_tool("ncu", "*/ncu") is None:
        pytest.skip("Nsight Compute is neither on PATH nor in its folder")
    try:
        profile = ncu.profile(Request(ncu.visible(CASE), "ncu", str(tmp_path)), "again")
    except BenchError as error:
        if ncu.NO_COUNTERS in str(error):
            pytest.skip(str(error))
        raise
    assert load(tmp_path) == profile
    off, split = profile.variants
    assert (off.variant.role, split.variant.role) == ("T1", "T2s")
    for found, ubatches in ((off, 1), (split, 2)):
        assert {"route", "permute", "gemm1", "silu_mul", "gemm2", "reduce", "merge"} <= {k.stage for k in found.kernels}
        assert not {"dispatch", "combine"} & {kernel.stage for kernel in found.kernels}
        gemms = [kernel for kernel in found.kernels if kernel.stage == "gemm1"]
        assert {(k.layer, k.ubatch) for k in gemms} == {(ncu.LAYER, u) for u in range(ubatches)}
        for kernel in found.kernels:
            shares = (kernel.dram, kernel.tensor, kernel.sm, kernel.occupancy)
            assert all(share is not None and 0 <= share <= 1 for share in shares), kernel
            assert 0 < kernel.duration_s < 1
            assert 0 < kernel.registers_per_thread <= 255
        assert any(kernel.tensor for kernel in gemms)
    assert profile.raw is not None, "the report holds this process's environment"
