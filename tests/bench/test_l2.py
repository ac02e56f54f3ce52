"""Whether a flush is believed: under a clock that reads from a script (the flush itself needs a GPU)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from one_pass import SETTINGS, Pass
from small_sweep import small_case

from bench import pass_runner
from bench.measure.l2 import UNPROVED, unproved


class FakeFlush:
    """Counts how often it was asked to flush."""

    l2_bytes = 4096

    def __init__(self) -> None:
        self.flushed = 0

    def __call__(self) -> None:
        self.flushed += 1


def slower_after(flush: FakeFlush, times: float) -> Callable[[Callable[[], object]], float]:
    """A clock to which the first read after a flush takes so many times as long."""
    seen = [0]

    def time_s(read: Callable[[], object]) -> float:
        read()
        cold = flush.flushed > seen[0]
        seen[0] = flush.flushed
        return 10e-6 * (times if cold else 1)

    return time_s


@pytest.mark.parametrize(("times", "proved"), [(2.0, True), (1.11, True), (1.09, False), (1.0, False)])
def test_a_flush_is_believed_where_reads_get_slower(times: float, proved: bool) -> None:
    flush = FakeFlush()
    said = unproved(flush, slower_after(flush, times), torch.device("cpu"))  # type: ignore[arg-type]
    assert (said is None) is proved
    assert proved or said == f"{UNPROVED}: a read takes 10 us hot, {round(10 * times, 1):g} us flushed"


def test_every_sample_is_flushed_before_and_a_flush_that_fails_is_a_doubt_of_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, said = FakeFlush(), f"{UNPROVED}: made up"
    monkeypatch.setattr(pass_runner.PassContext, "flushes", True)
    monkeypatch.setattr("bench.measure.l2.L2Flush", lambda device: flush)
    monkeypatch.setattr("bench.measure.l2.unproved", lambda *_: said)
    trial = Pass(tmp_path).run(small_case(), settings=replace(SETTINGS, cold_l2=True))
    assert flush.flushed == sum(len(m.samples_s) for m in trial.measurements) == 12
    for m in trial.measurements:
        assert said in m.flags
        assert pass_runner.COLD in m.labels


def test_a_cpu_claims_no_cold_cache(tmp_path: Path) -> None:
    trial = Pass(tmp_path).run(small_case(), settings=replace(SETTINGS, cold_l2=True))
    assert not any(pass_runner.COLD in m.labels for m in trial.measurements)
