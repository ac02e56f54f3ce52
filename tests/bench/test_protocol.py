"""The order in which samples are taken, under a clock that reads from a script."""

import gc
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from scripted_timer import ScriptedTimer

from bench.deciding.stats import paired_logs
from bench.measure.protocol import (
    MAX_WARM_UP_CALLS,
    MOST_WARM_UP,
    UNSETTLED,
    Samples,
    measure,
    repeats_for,
    warm_up,
)
from bench.measure.stopping import known_within
from bench.measure.timer import HostTimer
from bench.settings import MeasureSettings, SampleLimits


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
    found = warm_up(scripted(0.9, *[0.05, 0.03, 0.02] * 13), ScriptedTimer(), 1.0)
    assert found.iteration_s == pytest.approx(0.03)
    assert found.doubt is None, "steady but for its noise"


def test_a_warm_up_is_three_calls_at_least() -> None:
    found = warm_up(scripted(5.0, 2.0, 1.0), ScriptedTimer(), 0.1)
    assert found.iteration_s == pytest.approx(1.5)
    assert found.doubt == "warm-up did not settle: 3 calls are too few to tell"
    assert warm_up(scripted(5.0, 2.0, 1.0), ScriptedTimer(), 0.0).doubt is None, "nobody asked for a warm-up"


def test_a_warm_up_of_calls_that_take_no_time_ends() -> None:
    calls: list[int] = []
    warm_up(lambda: calls.append(0) or 0.0, ScriptedTimer(), 1.0)
    assert len(calls) == MAX_WARM_UP_CALLS


def cooling(tau_calls: float, excess: float = 0.5, noise: float = 0.0, settled_s: float = 1e-3) -> Callable[[], float]:
    """A series that falls to ``settled_s`` as exp(-call / tau), with noise of its own."""
    draw, calls = random.Random(3), itertools.count()
    return lambda: settled_s * (1 + excess * math.exp(-next(calls) / tau_calls) + draw.gauss(0, noise))


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
def test_a_warm_up_goes_on_until_the_series_has_settled(noise: float) -> None:
    """50 % too slow at first, e-folding in 20 calls: after the 15 calls asked for it is still 24 % off."""
    calls: list[float] = []
    series = cooling(20, noise=noise)

    def call() -> float:
        calls.append(series())
        return calls[-1]

    found = warm_up(call, ScriptedTimer(), 20e-3)
    assert found.doubt is None
    assert 60 < len(calls) < 20 * MOST_WARM_UP
    assert found.iteration_s == pytest.approx(1e-3, rel=0.02 + noise)


def test_a_warm_up_without_drift_is_as_short_as_asked() -> None:
    calls: list[int] = []
    found = warm_up(lambda: calls.append(0) or 1e-3, ScriptedTimer(), 15e-3)
    assert (len(calls), found.doubt) == (15, None)


def test_a_warm_up_that_never_settles_ends_and_is_told() -> None:
    """Each call is 1 % slower than the one before."""
    calls = itertools.count()
    found = warm_up(lambda: 1e-3 * 1.01 ** next(calls), ScriptedTimer(), 20e-3)
    assert found.doubt is not None
    told = re.fullmatch(r"warm-up did not settle: still drifting by \+(.+) % after (\d+) calls", found.doubt)
    assert told is not None
    assert float(told[1]) == pytest.approx(100 * (1.01 ** (int(told[2]) // 4) - 1), rel=0.01)
    assert next(calls) == int(told[2]) < 20 * MOST_WARM_UP, "calls get slower, and the time is up"


def test_what_did_not_settle_is_told_of_that_variant_alone() -> None:
    calls = itertools.count()
    recorder = Recorder()
    recorder.calls["B"] = lambda: 1e-3 * (1 + next(calls))
    samples = recorder.measure(MeasureSettings(rounds=1, round_min_s=0.0, warm_up_s=0.02))
    assert [len(one.doubts) for one in samples.values()] == [0, 1, 0]
    assert samples["B"].doubts[0].startswith(UNSETTLED)


STOPPING = MeasureSettings(samples=SampleLimits(12, 100), stop_when=0.005, round_min_s=0.0, warm_up_s=0.0)


def noisy(sd: float, seed: int) -> Callable[[], float]:
    draw = random.Random(seed)
    return lambda: 1e-3 * math.exp(draw.gauss(0, sd))


def stopped(sd: float, settings: MeasureSettings = STOPPING) -> dict[str, Samples]:
    calls = {name: noisy(sd, seed) for seed, name in enumerate("ABC")}
    return measure(calls, ScriptedTimer(), settings, lambda *_: None, baselines={"B": "A", "C": "A"})


def test_a_quiet_pass_stops_at_the_least_and_a_noisier_one_later() -> None:
    assert {len(one.samples_s) for one in stopped(1e-4).values()} == {12}
    some = stopped(0.008)
    (num_samples,) = {len(one.samples_s) for one in some.values()}
    assert 12 < num_samples < 100
    for name in "BC":
        assert known_within(paired_logs(some["A"].samples_s, some[name].samples_s)) <= 0.005
    assert not any(one.doubts for one in some.values())


def test_a_pass_that_is_never_quiet_stops_at_the_most_and_says_what_is_known() -> None:
    samples = stopped(0.2)
    assert {len(one.samples_s) for one in samples.values()} == {100}
    assert [len(samples[name].doubts) for name in "ABC"] == [0, 1, 1]
    assert re.fullmatch(
        r"ratio to T1 not known as asked: within \S+ % after 100 samples, 0\.5 % was asked", samples["B"].doubts[0]
    )


def test_the_last_round_is_cut_to_the_most() -> None:
    """Rounds of 7 blocks of three variants: 14, 28, then 40 instead of 42 samples."""
    uneven = itertools.cycle([1.0, 1.2, 0.9, 1.1, 0.8])
    settings = replace(STOPPING, samples=SampleLimits(12, 41), round_min_s=0.04)
    calls = {"A": lambda: 1e-3, "B": lambda: 1e-3 * next(uneven), "C": lambda: 1e-3}
    samples = measure(calls, ScriptedTimer(), settings, lambda *_: None, baselines={"B": "A"})
    assert [samples["A"].rounds.count(index) for index in range(4)] == [14, 14, 12, 0]


def test_a_slow_case_stops_before_its_limit_takes_all_of_it() -> None:
    settings = replace(STOPPING, case_limit_s=0.24)  # half of it: 40 samples of each of three variants
    samples = stopped(0.2, settings)
    assert 30 <= len(samples["A"].samples_s) <= 40
    assert samples["B"].doubts


def test_without_a_rule_rounds_are_what_they_were() -> None:
    samples = stopped(1e-6, replace(STOPPING, stop_when=None, rounds=7))
    assert {len(one.samples_s) for one in samples.values()} == {14}


def test_what_is_asked_between_rounds_is_asked_at_both_ends_too() -> None:
    recorder = Recorder()
    measure(
        recorder.calls,
        ScriptedTimer(),
        NO_REPEATS,
        lambda *_: None,
        between_rounds=lambda: recorder.called.append("|"),
    )
    assert "".join(recorder.called) == "AAABBBCCC|ABCCBA|ABCCBA|"


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
