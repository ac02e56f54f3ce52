"""Medians of many runs in one go: bit for bit what each run finds for itself, whatever its passes hold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import synthetic

from bench.deciding import join
from bench.deciding.at_once import tell_medians
from bench.deciding.join import Runs
from bench.deciding.sides import Sides, overlapped
from bench.results import Measurement, Status, Trial
from moe_impl.options import Workload

CASES = synthetic.cases((256, 1024, 4096), splits=(2, 4))
Change = Callable[[Measurement, int, Workload], Measurement]


def first(m: Measurement, num: int) -> Measurement:
    """Of its samples."""
    return replace(m, samples_s=m.samples_s[:num])


def only(role: str, passes: tuple[int, ...], change: Callable[[Measurement], Measurement]) -> Change:
    return lambda m, pass_index, work: change(m) if m.role == role and pass_index in passes else m


def fails(m: Measurement) -> Measurement:
    return synthetic.failed(m, Status.OOM)


CHANGES: dict[str, tuple[Change, bool, bool]] = {
    "as swept": (lambda m, p, w: m, True, True),
    "equal samples": (only("T2o", (0,), lambda m: replace(m, samples_s=m.samples_s[:1] * 6)), True, True),
    "odd numbers of samples": (lambda m, p, w: first(m, 5), True, False),
    "fewer samples of T2o": (only("T2o", (0, 1, 2), lambda m: first(m, 4)), True, False),
    "fewer samples in one pass": (lambda m, p, w: first(m, 4) if p == 1 else m, False, False),
    "T1 failed in one pass": (only("T1", (1,), fails), True, False),
    "other passes of T1 and of T2o": (
        lambda m, p, w: fails(m) if (m.role, p) in (("T1", 0), ("T2o", 2)) else m, True, False,
    ),
    "T1 never timed": (only("T1", (0, 1, 2), fails), True, False),
}  # fmt: skip
"""What happens in a sweep of three passes of six samples -> (whether T2o's medians, whether its speed-up is told)."""


def rows(trials: list[Trial]) -> list[Sides]:
    return [sides for passes in join.by_case(trials).values() for _, sides in overlapped(passes)]


def medians(runs: Runs) -> tuple[Any, ...]:
    return runs.median_s, runs.pass_logs


def speedup(row: Sides) -> Any:
    try:
        return row.estimate and row.estimate.pass_logs
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_told_is_what_would_be_found(kind: str) -> None:
    change, tells_medians, tells_speedup = CHANGES[kind]
    trials = synthetic.Builder(passes=3, pairs=3, change=change).trials(CASES)
    told, found = rows(trials), rows(trials)
    assert len(told) == 6
    tell_medians(told)
    assert ["median_s" in vars(row.on) for row in told] == [tells_medians] * 6
    assert ["estimate" in vars(row) for row in told] == [tells_speedup] * 6
    for one, other in zip(told, found, strict=True):
        assert [medians(runs) for runs in (one.off, one.on)] == [medians(runs) for runs in (other.off, other.on)]
        assert speedup(one) == speedup(other)


def test_runs_of_many_shapes_keep_theirs() -> None:
    trials = [
        trial
        for index, case in enumerate(CASES)
        for trial in synthetic.Builder(passes=2 + index, pairs=1 + index % 2, seed=index).trials([case])
    ]
    told, found = rows(trials), rows(trials)
    tell_medians(told)
    assert all("estimate" in vars(row) for row in told)
    assert list(map(speedup, told)) == list(map(speedup, found))
    assert [medians(row.on) for row in told] == [medians(row.on) for row in found]


def test_no_rows() -> None:
    tell_medians([])
