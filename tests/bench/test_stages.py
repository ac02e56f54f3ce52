"""The instrumented pass: which op's time ends where in the table."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from plain_schedule import build

from bench.measure.stages import HostStamps, by_stage, stage_times, stamps_for
from moe_impl.overlap.schedule import Op

SCHEDULE = build(2, 2, "yield_after")


class SleepyRun:
    """A run whose ops take as long as ``seconds`` says, in the given iterations' turn."""

    schedule, label, captured = SCHEDULE, "sleepy", False

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        self.iteration, self.seconds = 0, seconds

    def __call__(self, around: Callable[[int, Op], AbstractContextManager[None]]) -> None:
        for position, op in enumerate(self.schedule.ops):
            with around(position, op):
                until = time.perf_counter() + self.seconds(self.iteration, position)
                while time.perf_counter() < until:
                    pass
        self.iteration += 1

    def under(self, around: Callable[[int, Op], AbstractContextManager[None]]) -> Callable[[], None]:
        return lambda: self(around)


def test_a_table_is_indexed_by_stage_layer_and_micro_batch() -> None:
    table = by_stage(SCHEDULE, [float(position) for position in range(len(SCHEDULE.ops))])
    assert set(table) == {str(op.stage) for op in SCHEDULE.ops}
    for position, op in enumerate(SCHEDULE.ops):
        assert table[op.stage][op.layer][op.ubatch] == position


def test_one_slow_iteration_does_not_show_in_the_median() -> None:
    slow = 7
    run = SleepyRun(lambda iteration, position: 0.05 if (iteration, position) == (1, slow) else 2e-4)
    found = stage_times(run, torch.device("cpu"))  # type: ignore[arg-type]
    op = SCHEDULE.ops[slow]
    assert 2e-4 <= found.op_s[op.stage][op.layer][op.ubatch] < 0.02
    assert run.iteration == 4


def test_the_first_iteration_is_not_recorded() -> None:
    """Nor the second, by the median: with two slow ones among three recorded, the median would be slow."""
    run = SleepyRun(lambda iteration, position: 0.01 if iteration < 2 else 1e-4)
    found = stage_times(run, torch.device("cpu"))  # type: ignore[arg-type]
    assert found.span_s < 0.01 * len(SCHEDULE.ops) / 2


def test_the_span_reaches_from_the_first_start_to_the_last_end() -> None:
    found = stage_times(SleepyRun(lambda iteration, position: 5e-4), torch.device("cpu"))  # type: ignore[arg-type]
    total_s = sum(seconds for layers in found.op_s.values() for row in layers for seconds in row)
    assert found.span_s >= 0.99 * total_s >= 0.99 * 5e-4 * len(SCHEDULE.ops)


def test_a_cpu_is_stamped_by_its_clock() -> None:
    stamps = stamps_for(torch.device("cpu"), 2)
    assert isinstance(stamps, HostStamps)
    stamps.begin()
    for position in (1, 0):
        with stamps.around(position, SCHEDULE.ops[position]):
            pass
    (later, _), (earlier, end) = stamps.spans_s()
    assert 0 <= earlier <= end <= later


def test_an_op_that_raises_is_not_swallowed() -> None:
    stamps = HostStamps(1)
    stamps.begin()
    with pytest.raises(RuntimeError, match="made up"), stamps.around(0, SCHEDULE.ops[0]):
        raise RuntimeError("made up")
