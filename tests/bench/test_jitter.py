"""Random host delays: they come before ops, and an output that changes with them is no result."""

import math
import random
import time
from pathlib import Path

import pytest
import torch
from one_pass import Merge, Pass, by_role, replace_merge
from small_sweep import small_case

from bench.measure import jitter
from bench.results import ScheduleSpread, Status
from moe_impl.state import UbatchState


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
    assert "with the host's timing: a race?" in found.reason
    assert found.spread is not None
    assert found.spread.largest_difference > 0
    assert found.samples_s == ()
