"""torch.profiler and Nsight Systems tell the same of one case, and both what the event timer tells, each within 3 %."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch

from bench.cases import Case, with_companions
from bench.doctor import tools
from bench.profiling import drive
from bench.profiling.agreement import ALIKE, agreements
from bench.profiling.kept import Kept, keep
from bench.profiling.request import Request, Tool
from bench.timeline.read import read
from moe_impl.links import PACED_PRESETS
from moe_impl.options import Variant, Workload
from moe_impl.shapes import ModelShape

pytestmark = pytest.mark.gpu

WORKLOAD = Workload(ModelShape(2048, 2048, 64, 8), ep_size=8, layers=2, tokens=8192, precision="bf16")
"""Some 10 ms an iteration of some 50 launches: no host is in the way."""
CASE = Case(WORKLOAD, PACED_PRESETS["h800-nvlink-ep8"], tuple(with_companions(Variant(experts="torch"))))


def profiled(tool: Tool, folder: Path) -> Kept:
    folder.mkdir()
    request = Request(CASE, tool, str(folder))
    return keep(request, drive.profile(request), "again")


def timed_s(role: str) -> float:
    """The median of one variant, in this process."""
    from bench.measure.cuda_timer import CudaEventTimer
    from bench.targets import Targets

    (variant,) = (one for one in CASE.variants if one.role == role)
    run = Targets(torch.device("cuda")).build(CASE).run(variant, lambda position: None)
    timer = CudaEventTimer()
    for _ in range(20):
        timer.time_s(run)
    return median(timer.time_s(run) for _ in range(30))


@pytest.fixture(scope="module")
def by_torch(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return profiled("torch", tmp_path_factory.mktemp("by") / "torch")


@pytest.mark.parametrize("role", ["T1", "T2s", "T2o"])
@torch.inference_mode()
def test_an_annotated_span_is_what_the_event_timer_tells(role: str, by_torch: Kept) -> None:
    (one,) = (one for one in by_torch.profiled if one.variant.role == role)
    assert one.analysis.span_ns * 1e-9 == pytest.approx(timed_s(role), rel=ALIKE)


def test_both_tools_tell_the_same_ratio_and_stage_shares(by_torch: Kept, tmp_path: Path) -> None:
    if tools.find_tool("nsys", "*/host/target-linux-x64/nsys") is None:
        pytest.skip("Nsight Systems is neither on PATH nor inside Nsight Compute")
    (found,) = agreements([by_torch, profiled("nsys", tmp_path / "nsys")])
    assert found.alike, found


def test_every_piece_of_a_replay_is_told_in_a_trace(tmp_path: Path) -> None:
    replayed = replace(CASE, variants=tuple(replace(variant, launch="graph") for variant in CASE.variants))
    for trace in drive.profile(Request(replayed, "torch", str(tmp_path))):
        assert read(trace).doubts == []
