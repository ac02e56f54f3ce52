"""What a timeline figure shows: every piece of work where it ran, and exactly the exposed communication."""

from dataclasses import replace
from itertools import pairwise

import kept_profile
import numpy as np
import pytest
from hypothesis import given
from timelines import STAGES, Op, ops_of, profile

from bench.timeline import strip as figure
from bench.timeline.attribute import Attributed, attribute
from bench.timeline.metrics import iterations
from bench.timeline.model import UNKNOWN
from bench.timeline.read import read
from bench.timeline.repeating import with_iterations
from bench.timeline.strip import strip


@given(ops_of(*STAGES))
def test_bars_are_the_spans_and_the_strip_is_what_the_metrics_call_exposed(ops: list[Op]) -> None:
    found = attribute(profile(ops))
    (measured,) = iterations(found)
    shown = strip(found)
    begin = min(start for _, _, start, _, _ in ops)
    bars = sorted((bar.start_ns + begin, bar.end_ns + begin) for lane in shown.lanes for bar in lane.bars)
    assert bars == sorted((start, end) for _, _, start, end, _ in ops)
    assert sum(end - start for start, end in shown.exposed) == measured.exposed_ns == shown.exposed_ns
    assert (shown.shown_ns, shown.span_ns) == (measured.span_ns, measured.span_ns)


@pytest.mark.parametrize(("which", "lanes"), [(0, 1), (1, 2), (2, 4)])
def test_real_traces_have_a_lane_a_stream_and_micro_batch(which: int, lanes: int) -> None:
    shown = strip(attribute(read(kept_profile.TRACES[which])))
    assert len(shown.lanes) == lanes
    assert (shown.layers, shown.layers_shown, shown.told) == (4, 4, "untold")
    stages = [{bar.stage for bar in lane.bars} for lane in shown.lanes]
    if which == 2:
        assert stages[2] == stages[3] == {"dispatch", "combine"}
        assert stages[0].isdisjoint({"dispatch", "combine"})
    for lane in shown.lanes:
        assert all(left.end_ns <= right.start_ns for left, right in pairwise(lane.bars))


def repeated(times: int, change: int | None = None) -> Attributed:
    """A trace of ``times`` equal iterations that no range names; ``change``: a launch of another stage there."""
    ops: list[Op] = []
    for index in range(times):
        at = 1000 * index
        ops += [("gemm1", 0, at + 100, at + 200 + index, at + 1), ("dispatch", 0, at + 150, at + 300, at + 5)]
    if change is not None:
        ops[change] = ("gemm2", *ops[change][1:])
    found = attribute(profile(ops))
    return replace(found, iteration=np.full(len(found.lane), UNKNOWN))


def test_iterations_that_no_range_names_are_told_by_their_repetition() -> None:
    numbered, told = with_iterations(repeated(5))
    assert (told, numbered.iteration.tolist()) == ("repeating", [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    shown = strip(repeated(5))
    assert (shown.told, shown.iterations, shown.span_ns) == ("repeating", 5, 200)


def test_what_repeats_but_for_one_launch_is_one_whole() -> None:
    found, told = with_iterations(repeated(5, change=6))
    assert (told, set(found.iteration.tolist())) == ("untold", {UNKNOWN})
    assert strip(repeated(5, change=6)).span_ns == 4200


def test_without_layers_or_launches_nothing_is_guessed() -> None:
    found = repeated(4)
    assert with_iterations(replace(found, layer=np.full(8, UNKNOWN)))[1] == "untold"
    found.profile.work.launch_ns[3] = UNKNOWN
    assert with_iterations(found)[1] == "untold"


def test_ranges_go_before_repetition() -> None:
    found = repeated(2)
    named = replace(found, iteration=np.array([7, 7, 7, 8]))
    assert with_iterations(named) == (named, "named")


def test_work_of_no_micro_batch_joins_a_lane_of_its_stream() -> None:
    found = attribute(profile([("gemm1", 1, 100, 110, 1), ("gemm1", 0, 110, 120, 5), ("dispatch", 0, 100, 120, 9)]))
    lost = np.where(found.profile.work.start_ns == 110, UNKNOWN, found.ubatch)
    shown = strip(replace(found, ubatch=lost))
    assert [(lane.stream, lane.ubatch, len(lane.bars)) for lane in shown.lanes] == [(1, 1, 2), (2, 0, 1)]
    alone = strip(replace(found, ubatch=np.full(3, UNKNOWN)))
    assert [(lane.stream, lane.ubatch) for lane in alone.lanes] == [(1, UNKNOWN), (2, UNKNOWN)]


def test_of_many_layers_the_first_are_shown_and_later_work_is_cut_there() -> None:
    ops: list[Op] = [("gemm1", 0, 100 * (i + 1), 100 * (i + 1) + 90, i) for i in range(6)]
    ops.append(("combine", 0, 385, 620, 7))
    found = attribute(profile(ops))
    order = found.profile.work.start_ns
    layer = np.where(found.profile.work.stream == 2, 5, order // 100 - 1)
    shown = strip(replace(found, layer=layer))
    assert (shown.layers, shown.shown_ns, shown.span_ns) == (6, 390, 590)
    assert max(bar.end_ns for lane in shown.lanes for bar in lane.bars) == 390
    assert shown.exposed == ((290, 300),)
    assert shown.exposed_ns == 30, "of the whole iteration"


def test_more_bars_than_anyone_can_see_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "MOST_BARS", 3)
    shown = strip(attribute(profile([("gemm1", 0, 100 * i, 100 * i + 50, i) for i in range(1, 9)])))
    assert (sum(len(lane.bars) for lane in shown.lanes), shown.shown_ns) == (3, 300)
