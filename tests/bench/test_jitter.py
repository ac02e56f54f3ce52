"""Random delays: they come before ops, and an output that changes with them is no result."""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from one_pass import Merge, Pass, by_role, replace_merge
from plain_schedule import build
from small_sweep import small_case

from bench.measure import jitter
from bench.results import ScheduleSpread, Status
from moe_impl.overlap.driver import Around
from moe_impl.state import UbatchState

OPS = build(2, 2, "yield_after").ops


@pytest.fixture
def one_pass(tmp_path: Path) -> Pass:
    return Pass(tmp_path)


def test_half_of_the_ops_are_delayed_and_all_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    noted = jitter.delaying(told.append, random.Random(1))
    for position in range(1000):
        noted(position)
    assert told == list(range(1000))
    assert 400 < len(slept) < 600
    assert 0 <= min(slept) < max(slept) <= jitter.MOST_DELAY_S


def test_only_equal_bits_are_no_difference() -> None:
    expected = torch.ones(2, 8).bfloat16()
    found = expected.clone()
    assert jitter.relative_difference(found, expected) == 0.0
    found.view(torch.int16)[0, 0] += 1
    assert jitter.relative_difference(found, expected) == pytest.approx(2**-7 / 4)
    found[0, 0] = math.nan
    assert jitter.relative_difference(found, expected) == math.inf


class CapturedStandIn:
    """Captures without a GPU; a replay gives ones."""

    def __init__(self, waits: list[int]) -> None:
        self.waits, self.replays = waits, 0
        self.counts: list[int] = []

    def under(self, around: Around) -> Callable[[], torch.Tensor]:
        before = len(self.waits)
        for position, op in enumerate(OPS):
            with around(position, op):
                pass
        self.counts.append(len(self.waits) - before)

        def replay() -> torch.Tensor:
            self.replays += 1
            return torch.ones(2, 2)

        return replay


def test_a_captured_run_is_captured_anew_for_each_set_of_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(torch.cuda, "_sleep", waits.append)
    run = CapturedStandIn(waits)
    spread = jitter.captured_spread(run, torch.ones(2, 2), random.Random(0))  # type: ignore[arg-type]
    assert spread == ScheduleSpread(jitter.RUNS, 0.0)
    assert run.replays == len(run.counts) == jitter.RUNS
    assert len(set(run.counts)) > 1, "the same ops would wait in each"
    assert 0.35 < len(waits) / (jitter.RUNS * len(OPS)) < 0.65
    assert 0 < max(waits) <= jitter.MOST_DELAY_CYCLES
    spread = jitter.captured_spread(run, torch.full((2, 2), 2.0), random.Random(0))  # type: ignore[arg-type]
    assert spread.largest_difference == pytest.approx(0.5)


def test_overlapped_variants_are_run_again_and_serial_ones_are_not(one_pass: Pass) -> None:
    found = by_role(one_pass.run(small_case()))
    assert (found["T1"].spread, found["T2s"].spread) == (None, None)
    assert found["T2o"].spread == ScheduleSpread(jitter.RUNS, 0.0)


def test_an_output_that_changes_with_the_hosts_timing_is_incorrect(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Merge] = []

    def wrong_when_disturbed(merge: Merge) -> Merge:
        built.append(merge)
        disturbed = len(built) == 2  # the first is the run that is checked

        def body(state: UbatchState, layer: int) -> None:
            merge(state, layer)
            if disturbed and layer == 1:
                state.x_TH.view(torch.int16)[0, 0] ^= 1

        return body

    replace_merge(monkeypatch, "T2o", wrong_when_disturbed)
    found = by_role(one_pass.run(small_case()))["T2o"]
    assert found.status is Status.INCORRECT
    assert found.reason is not None
    assert "with the timing of its ops: a race?" in found.reason
    assert found.spread is not None
    assert found.spread.largest_difference > 0
    assert found.samples_s == ()
