"""Launch ``graph`` on a GPU: the bits of an eager run at every replay, overlapped, priorities kept, nothing left."""

import gc
import random
from functools import partial
from statistics import median

import pytest
import torch
from no_wait import no_wait
from small_target import SLOW, ignore, small_target

from bench.measure.cuda_timer import CudaEventTimer
from bench.measure.jitter import captured_spread
from bench.measure.stages import stage_times
from bench.targets import Target
from moe_impl.captured_run import CapturedRun
from moe_impl.links import HOST_LINK, LOCAL
from moe_impl.options import Link, Precision, Variant, default_experts
from moe_impl.overlap import cuda_lanes
from moe_impl.overlap.lanes import awaits
from moe_impl.overlap.schedule import Schedule
from moe_impl.stages import Stage

pytestmark = pytest.mark.gpu


def _captured(target: Target, variant: Variant) -> CapturedRun:
    run = target.run(variant, ignore)
    assert isinstance(run, CapturedRun)
    run.ready()
    assert run._plain is not None
    return run


@pytest.mark.parametrize("link", [LOCAL, SLOW, HOST_LINK], ids=lambda link: link.name)
@pytest.mark.parametrize("precision", ["nvfp4", "bf16"])
def test_every_replay_gives_the_bits_of_an_eager_run(precision: Precision, link: Link) -> None:
    target = small_target(precision, link, tokens=515)
    overlapped = Variant(default_experts(precision), launch="graph")
    for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped):
        expected = target.run(Variant(variant.experts, variant.engine, variant.split_factor), ignore)()
        run = _captured(target, variant)
        for _ in range(3):
            run._plain.poison()  # type: ignore[union-attr]
            assert run().isnan().sum() == 0, variant.label
            assert torch.equal(run(), expected), variant.label
        traced_TH, traces = run.traced()
        assert torch.equal(traced_TH, expected), variant.label
        assert len(traces) == 2
        assert captured_spread(run, expected, random.Random(0)).largest_difference == 0.0, variant.label


def test_a_missing_edge_between_the_lanes_shows_in_a_captured_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """``permute`` that does not wait for what ``dispatch`` brings reads NaN, or rows of the other micro-batch."""

    def without_dispatch(schedule: Schedule, position: int) -> tuple[int, ...]:
        if schedule.ops[position].stage is Stage.PERMUTE:
            return ()
        return awaits(schedule, position)

    target = small_target("bf16", SLOW, tokens=515)
    expected = target.run(Variant("torch"), ignore)().clone()
    monkeypatch.setattr(cuda_lanes, "awaits", without_dispatch)
    run = target.run(Variant("torch", launch="graph"), ignore)
    assert captured_spread(run, expected, random.Random(0)).largest_difference > 0


def test_a_captured_run_overlaps_and_a_replay_waits_for_nothing() -> None:
    target = small_target("bf16", SLOW, tokens=8192)
    overlapped = Variant("torch", launch="graph")
    timer = CudaEventTimer()
    runs = {variant.role: _captured(target, variant) for variant in (overlapped.split_serial(), overlapped)}
    taken_s = {role: median(timer.time_s(run) for _ in range(10)) for role, run in runs.items()}
    assert taken_s["T2o"] < 0.9 * taken_s["T2s"], taken_s
    with no_wait():
        runs["T2o"]()


def test_a_replay_of_a_small_batch_takes_far_less_host_time_than_issuing_it() -> None:
    target = small_target("nvfp4", LOCAL, tokens=64)
    timer = CudaEventTimer()
    taken_s = {}
    for variant in (Variant("triton"), Variant("triton", launch="graph")):
        run = target.run(variant, ignore)
        run.ready()
        taken_s[variant.launch] = median(timer.time_s(run) for _ in range(20))
    assert taken_s["graph"] < 0.5 * taken_s["eager"], taken_s


def test_stage_times_come_from_events_in_the_graph() -> None:
    target = small_target("nvfp4", SLOW, tokens=2048)
    timer = CudaEventTimer()
    for variant in (Variant("triton", launch="graph"), Variant("triton", launch="graph").split_serial()):
        run = _captured(target, variant)
        timed_s = median(timer.time_s(run) for _ in range(10))
        stages = stage_times(run, torch.device("cuda"))
        seconds = [s for layers in stages.op_s.values() for ubatches in layers for s in ubatches]
        assert min(seconds) >= 0
        assert stages.span_s == pytest.approx(timed_s, rel=0.2)
        if variant.role == "T2s":
            assert 0.7 * stages.span_s <= sum(seconds) <= 1.01 * stages.span_s
        assert min(stages.op_s["dispatch"][0]) >= SLOW.time("dispatch").alpha_s


SMALL_SEGMENT_BYTES = 2 << 20
"""What the allocator reserves for the first of some small tensors."""


def test_a_graphs_memory_is_given_back_with_its_run_and_is_what_the_record_says() -> None:
    target = small_target("bf16", LOCAL, tokens=2048)
    target.run(Variant("torch"), ignore)()  # what a process keeps for good: workspaces, compiled kernels
    variant = Variant("torch", launch="graph")
    _captured(target, variant)
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = (torch.cuda.memory_allocated(), torch.cuda.memory_reserved())
    run = _captured(target, variant)
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved() - before[1]
    assert run.pool_bytes is not None
    assert 0 <= held - run.pool_bytes <= SMALL_SEGMENT_BYTES, "beside its pool: the small tensors of the run itself"
    stages, memory = target.watching_memory(partial(stage_times, run, torch.device("cuda")), run.pool_bytes)
    assert memory is not None
    assert stages.span_s > 0
    assert (memory.retained_bytes, memory.activations_bytes) == (0, run.pool_bytes)
    del run
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before


def test_an_eager_run_and_a_captured_one_take_turns() -> None:
    """On the same streams, engines and ring: an event of either is no edge of the other."""
    target = small_target("bf16", HOST_LINK, tokens=515)
    eager, graph = (target.run(Variant("torch", launch=launch), ignore) for launch in ("eager", "graph"))
    expected = eager().clone()
    for _ in range(3):
        assert torch.equal(graph(), expected)
        assert torch.equal(eager(), expected)
        assert torch.equal(graph.traced()[0], expected)
