"""Metrics of overlap: by hand, as invariants of any timeline, and on a real export."""

import csv
from collections import defaultdict
from itertools import starmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from timelines import SAMPLE_RULES, STAGES, Op, joined, ops_of, profile

from bench.timeline import nsys
from bench.timeline.analysis import measure, runs_of
from bench.timeline.attribute import attribute
from bench.timeline.metrics import IterationMetrics, iterations
from bench.timeline.model import UNKNOWN, Column, Ranges, Work
from bench.timeline.nesting import nest

DATA = Path(__file__).parents[1] / "data"


def only(ops: list[Op]) -> IterationMetrics:
    (found,) = iterations(attribute(profile(ops)))
    return found


def test_serial_work_hides_nothing() -> None:
    found = only([("route", 0, 100, 110, 1), ("dispatch", 0, 110, 160, 5), ("gemm1", 0, 160, 200, 9)])
    assert (found.span_ns, found.busy_ns, found.idle_ns) == (100, 100, 0)
    assert (found.compute_ns, found.comm_ns, found.overlapped_ns, found.exposed_ns) == (50, 50, 0, 50)
    assert found.blocking_ns == 50, "gemm1 was launched at 9 and only dispatch was in its way"
    assert found.overlap == 0.0


def test_exposed_is_not_blocking_until_the_next_compute_is_launched() -> None:
    found = only([("route", 0, 100, 110, 1), ("dispatch", 0, 110, 160, 5), ("gemm1", 0, 170, 200, 149)])
    assert (found.exposed_ns, found.blocking_ns) == (50, 10), "gemm1's launch returned at 150"
    assert (found.idle_ns, found.starved_ns, found.stalled_ns) == (10, 0, 10)


def test_idle_before_a_launch_is_the_hosts() -> None:
    found = only([("gemm1", 0, 100, 110, 1), ("gemm2", 0, 150, 160, 130)])
    assert (found.idle_ns, found.starved_ns, found.stalled_ns) == (40, 20, 20)
    assert only([("gemm1", 0, 100, 110, 1), ("gemm2", 0, 150, 160, 148)]).starved_ns == 38


def test_two_micro_batches_that_overlap() -> None:
    found = only(
        [
            ("gemm1", 0, 100, 150, 1),
            ("dispatch", 1, 110, 140, 10),
            ("gemm1", 1, 160, 200, 20),
            ("combine", 0, 170, 230, 31),
        ]
    )
    assert (found.comm_ns, found.overlapped_ns, found.exposed_ns) == (90, 60, 30)
    assert found.blocking_ns == 0, "nothing waits for the last combine"
    assert found.overlap == pytest.approx(60 / 90)
    assert found.hand_over_gap_ns == pytest.approx(9.0), "from 2 to 10, and from 21 to 31"
    assert found.stages_ns == {"gemm1": 90, "dispatch": 30, "combine": 60}


@given(ops_of(*STAGES, "elsewhere"))
def test_invariants_of_any_iteration(ops: list[Op]) -> None:
    for found in iterations(attribute(profile(ops))):
        assert found.busy_ns + found.idle_ns == found.span_ns
        assert found.starved_ns + found.stalled_ns + found.unlaunched_ns == found.idle_ns
        assert min(found.starved_ns, found.stalled_ns, found.unlaunched_ns) >= 0
        assert found.overlapped_ns + found.exposed_ns == found.comm_ns
        assert 0 <= found.blocking_ns <= found.exposed_ns
        assert max(found.compute_ns, found.comm_ns, found.unknown_ns) <= found.busy_ns
        assert found.busy_ns <= found.compute_ns + found.comm_ns + found.unknown_ns
        assert found.busy_ns == found.compute_ns + found.exposed_ns or found.unknown_ns > 0


def projected(ranges: Ranges, work: Work) -> tuple[Column, Column]:
    """Of each range, the ranges inside it included: ns from the first start to the last end, and how many operations.

    What was launched inside it, whenever it ran: Nsight's GPU projection.
    """
    nesting = nest(ranges, work)
    start = np.full(len(ranges), np.iinfo(np.int64).max)
    end, operations = np.zeros_like(start), np.zeros_like(start)
    at, rows = nesting.inner, np.arange(len(work))
    while (inside := at != UNKNOWN).any():
        at, rows = at[inside], rows[inside]
        np.minimum.at(start, at, work.start_ns[rows])
        np.maximum.at(end, at, work.end_ns[rows])
        np.add.at(operations, at, 1)
        at = nesting.parent[at]
    return end - start, operations


def test_the_projection_of_every_range_is_nvidias_own() -> None:
    """``nsys stats -r nvtx_gpu_proj_sum`` of the same export, to the nanosecond."""
    read = nsys.read(DATA / "nsight_sample.sqlite")
    taken_ns, operations = projected(read.ranges, read.work)
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for index in range(len(read.ranges)):
        name = f"{read.names.text(read.ranges.domain[index])}:{read.names.text(read.ranges.name[index])}"
        found[name][0] += int(taken_ns[index])
        found[name][1] += 1
        found[name][2] += int(operations[index])
    with (DATA / "nsight_sample.nvtx_gpu_proj_sum.csv").open() as file:
        expected = {
            row["Range"]: [int(row["Total Proj Time (ns)"]), int(row["Range Instances"]), int(row["Total GPU Ops"])]
            for row in csv.DictReader(file)
        }
    assert dict(found) == expected


def test_a_real_export_is_attributed_completely() -> None:
    found = attribute(nsys.read(DATA / "nsight_sample.sqlite"), SAMPLE_RULES)
    metrics = iterations(found)
    assert [m.iteration for m in metrics] == list(range(6))
    assert {m.work for m in metrics} == {20}
    assert all(m.unknown_ns == 0 and m.unlaunched_ns == 0 for m in metrics)
    assert sum(m.stages_ns["gemm1"] for m in metrics) == 335558, "nvtx_gpu_proj_sum's total"
    assert (found.layer != UNKNOWN).all()
    assert set(found.ubatch.tolist()) == {0, 1}


def test_work_outside_all_ranges_is_unknown_never_another_stage() -> None:
    by_hand = profile([("gemm1", 0, 100, 110, 1)])
    by_hand.work.launch_ns[:] = 10_000
    found = attribute(by_hand)
    assert (found.stage.tolist(), found.lane.tolist(), found.iteration.tolist()) == ([-1], [-1], [-1])
    (metrics,) = iterations(found)
    assert (metrics.iteration, metrics.unknown_ns, metrics.compute_ns) == (UNKNOWN, 10, 0)


def test_several_runs_of_one_profile_are_told_apart() -> None:
    two = attribute(joined(("off triton", 10), ("streams x2", 50)))
    found = {run.run: run.span_ns for run in starmap(measure, runs_of(two))}
    assert found == {"off triton": 10, "streams x2": 50}
