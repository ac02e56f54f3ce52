"""The order in which samples are taken, under a clock that reads from a script."""

import gc
from collections.abc import Callable, Iterator

import pytest

from bench.deciding.stats import paired_logs
from bench.measure.protocol import MAX_WARM_UP_CALLS, Samples, measure, repeats_for, warm_up
from bench.measure.settings import MeasureSettings
from bench.measure.timer import HostTimer


class ScriptedTimer:
    """Each call says how long it took."""

    name = "scripted"

    def time_s(self, call: Callable[[], object]) -> float:
        taken_s = call()
        assert isinstance(taken_s, float)
        return taken_s

    device_time_s = time_s


class Recorder:
    """Calls that leave a trace: ``A`` takes 1 ms, ``B`` 2 ms, ``C`` 4 ms."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.announced: list[tuple[str, str | None, int]] = []
        seconds = {"A": 1e-3, "B": 2e-3, "C": 4e-3}
        self.calls = {name: self._call(name, taken_s) for name, taken_s in seconds.items()}

    def _call(self, name: str, taken_s: float) -> Callable[[], float]:
        def call() -> float:
            self.called.append(name)
            return taken_s

        return call

    def measure(self, settings: MeasureSettings, pass_index: int = 0) -> dict[str, Samples]:
        def announce(what: str, current: str | None) -> None:
            self.announced.append((what, current, len(self.called)))

        return measure(self.calls, ScriptedTimer(), settings, announce, pass_index)


NO_REPEATS = MeasureSettings(rounds=2, round_min_s=0.0, warm_up_s=0.0)


def test_each_round_is_one_order_and_its_mirror() -> None:
    recorder = Recorder()
    recorder.measure(NO_REPEATS)
    assert "".join(recorder.called) == "AAABBBCCC" + 2 * "ABCCBA"


def test_samples_know_their_place_and_round() -> None:
    samples = Recorder().measure(NO_REPEATS)
    assert samples["A"] == Samples([1e-3] * 4, [0, 5, 6, 11], [0, 0, 1, 1])
    assert samples["C"] == Samples([4e-3] * 4, [2, 3, 8, 9], [0, 0, 1, 1])


@pytest.mark.parametrize(("pass_index", "order"), [(1, "BCAACB"), (2, "CABBAC"), (3, "ABCCBA"), (4, "BCAACB")])
def test_each_pass_begins_with_another_variant_and_still_mirrors(pass_index: int, order: str) -> None:
    recorder = Recorder()
    samples = recorder.measure(NO_REPEATS, pass_index)
    assert "".join(recorder.called) == "AAABBBCCC" + 2 * order
    assert list(samples) == ["A", "B", "C"]
    for name, one in samples.items():
        assert one.places == [place for place, called in enumerate(2 * order) if called == name]


def test_a_rotated_order_still_cancels_drift_between_paired_samples() -> None:
    """Every variant takes 1 s and the clock drifts: each mirrored block's sums must be equal."""
    for pass_index in range(3):
        samples = Recorder().measure(NO_REPEATS, pass_index)
        drifting = {name: [1 + 0.01 * place for place in one.places] for name, one in samples.items()}
        for name in ("B", "C"):
            assert paired_logs(drifting["A"], drifting[name]) == pytest.approx([0.0, 0.0], abs=1e-12)


def test_a_round_repeats_its_order_until_it_is_long_enough() -> None:
    recorder = Recorder()
    samples = recorder.measure(MeasureSettings(rounds=2, round_min_s=0.05, warm_up_s=0.0))
    assert "".join(recorder.called[9:]) == 2 * 4 * "ABCCBA"  # 14 ms each: four of them last 50 ms
    assert {len(one.samples_s) for one in samples.values()} == {16}
    assert samples["B"].rounds == [0] * 8 + [1] * 8


@pytest.mark.parametrize(("round_min_s", "repeats"), [(0.0, 1), (0.014, 1), (0.0141, 2), (0.5, 36)])
def test_repeats_are_the_fewest_that_last_long_enough(round_min_s: float, repeats: int) -> None:
    assert repeats_for({"A": 1e-3, "B": 2e-3, "C": 4e-3}, round_min_s) == repeats


def test_every_warm_up_and_round_is_announced_before_it_begins() -> None:
    recorder = Recorder()
    recorder.measure(NO_REPEATS)
    assert recorder.announced == [
        ("warm-up", "A", 0),
        ("warm-up", "B", 3),
        ("warm-up", "C", 6),
        ("round 1 of 2", None, 9),
        ("round 2 of 2", None, 15),
    ]


def scripted(*seconds: float) -> Callable[[], float]:
    script: Iterator[float] = iter(seconds)
    return lambda: next(script)


def test_a_warm_up_lasts_its_time_and_estimates_from_its_later_half() -> None:
    assert warm_up(scripted(0.9, 0.05, 0.03, 0.02, 99.0), ScriptedTimer(), 1.0) == pytest.approx(0.025)


def test_a_warm_up_is_three_calls_at_least() -> None:
    assert warm_up(scripted(5.0, 2.0, 1.0), ScriptedTimer(), 0.1) == pytest.approx(1.5)


def test_a_warm_up_of_calls_that_take_no_time_ends() -> None:
    calls: list[int] = []
    warm_up(lambda: calls.append(0) or 0.0, ScriptedTimer(), 1.0)
    assert len(calls) == MAX_WARM_UP_CALLS


def test_the_garbage_collector_rests_while_timing_and_comes_back_after_a_failure() -> None:
    recorder, enabled = Recorder(), []

    def breaking() -> float:
        enabled.append(gc.isenabled())
        if len(enabled) > 4:
            raise RuntimeError("made up")
        return 1e-3

    recorder.calls["A"] = breaking
    with pytest.raises(RuntimeError, match="made up"):
        recorder.measure(NO_REPEATS)
    assert enabled == [True, True, True, False, False]
    assert gc.isenabled()


def test_the_hosts_timer_times_the_call() -> None:
    called: list[int] = []
    assert 0 < HostTimer().time_s(lambda: called.append(1)) < 1
    assert called == [1]
