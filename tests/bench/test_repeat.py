"""Doubtful rows timed once more, one variant alone until steady: under clocks that read from a script."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_peers import FakePeers
from one_pass import SETTINGS, Pass
from scripted_timer import ScriptedTimer
from small_sweep import small_case

from bench.measure.protocol import MOST_WARM_UP
from bench.measure.repeat import ALONE_UNTIL_STEADY, DISAGREES, NEVER_STEADY, Alone, alone_until_steady, disagreement
from bench.results import Trial, from_record, to_record
from bench.settings import MeasureSettings
from bench.telemetry import GpuState

WARM = MeasureSettings(warm_up_s=0.02)


def noisy(mean_s: float, sd: float, seed: int) -> Callable[[], float]:
    draw = random.Random(seed)
    return lambda: mean_s * math.exp(draw.gauss(0, sd))


def turns(mean_s: float, sd: float, seed: int, count: int = 40) -> list[float]:
    call = noisy(mean_s, sd, seed)
    return [call() for _ in range(count)]


def alone(mean_s: float, error: float = 0.001) -> Alone:
    return Alone(mean_s, error, None)


def test_variants_are_timed_one_after_the_other_and_announced() -> None:
    told: list[str] = []
    calls = {"A": lambda: told.append("a") or 1e-3, "B": lambda: told.append("b") or 2e-3}
    found = alone_until_steady(calls, ScriptedTimer(), WARM, lambda detail, key: told.append(f"{detail} {key}"))
    assert told[0] == f"{ALONE_UNTIL_STEADY} A"
    assert "".join(told[1:21]) == 20 * "a"
    assert told[21:] == [f"{ALONE_UNTIL_STEADY} B", *10 * "b"]
    assert [(one.median_s, one.error, one.doubt) for one in found.values()] == [(1e-3, 0.0, None), (2e-3, 0.0, None)]


def test_a_series_counts_from_its_middle_and_goes_on_until_it_is_steady() -> None:
    calls = itertools.count()
    cooling = lambda: 1e-3 * (1 + 0.5 * math.exp(-next(calls) / 20))  # noqa: E731
    found = alone_until_steady({"A": cooling}, ScriptedTimer(), WARM, lambda *_: None)["A"]
    assert next(calls) > 60
    assert found.doubt is None
    assert found.median_s == pytest.approx(1e-3, rel=0.02)


def test_what_never_gets_steady_ends_and_is_told() -> None:
    calls = itertools.count()
    found = alone_until_steady({"A": lambda: 1e-3 * 1.01 ** next(calls)}, ScriptedTimer(), WARM, lambda *_: None)["A"]
    assert found.doubt is not None
    assert found.doubt.startswith(f"{NEVER_STEADY}: still drifting by +")
    assert next(calls) < 20 * MOST_WARM_UP


def test_the_error_of_a_median_is_that_of_a_normal_sample() -> None:
    """Over 200 series of 400 calls, 1 % noise each: how far medians scatter is what one series says of itself."""
    found = [Alone.of(turns(1e-3, 0.01, seed, 400)) for seed in range(200)]
    scatter = math.sqrt(sum(math.log(one.median_s / 1e-3) ** 2 for one in found) / len(found))
    assert sum(one.error for one in found) / len(found) == pytest.approx(scatter, rel=0.2)


@pytest.mark.parametrize(("speedup_alone", "said"), [(1.05, False), (1.06, False), (1.08, True), (1.02, True)])
def test_beyond_the_interval_is_a_disagreement(speedup_alone: float, said: bool) -> None:
    off_s, on_s = turns(1.05e-3, 0.01, 1), turns(1e-3, 0.01, 2)
    found = disagreement(alone(speedup_alone * 1e-3), alone(1e-3), off_s, on_s, 0.01)
    assert (found is not None) is said
    if found:
        assert found.startswith(f"{DISAGREES}: {speedup_alone:.3f}x alone, 1.0")


def test_a_noisy_repeat_disagrees_less_easily() -> None:
    off_s, on_s = turns(1.05e-3, 0.01, 1), turns(1e-3, 0.01, 2)
    assert disagreement(alone(1.08e-3), alone(1e-3), off_s, on_s, 0.01)
    assert disagreement(alone(1.08e-3, error=0.02), alone(1e-3), off_s, on_s, 0.01) is None


def test_too_few_blocks_and_an_unsteady_repeat_say_nothing_of_the_ratio() -> None:
    assert disagreement(alone(2e-3), alone(1e-3), [1e-3] * 4, [1e-3] * 4, 0.01) is None
    assert disagreement(Alone(2e-3, 0.0, "drifts"), alone(1e-3), [1e-3] * 40, [1e-3] * 40, 0.01) is None


def test_false_alarms_are_rare() -> None:
    """Same ratio in both modes, 2 % noise a sample: 300 repeats of 40 calls. The 95 % interval alone would give 5 %."""
    alarms = 0
    for seed in range(300):
        off, on = (Alone.of(turns(mean_s, 0.02, 4 * seed + which)) for which, mean_s in enumerate((1.1e-3, 1e-3)))
        off_s, on_s = turns(1.1e-3, 0.02, 4 * seed + 2), turns(1e-3, 0.02, 4 * seed + 3)
        alarms += disagreement(off, on, off_s, on_s, 0.001) is not None
    assert alarms <= 6, alarms


def test_of_several_ranks_the_slowest_counts() -> None:
    peers = FakePeers(lambda value: [3 * one for one in value] if isinstance(value, list) else value)
    found = alone_until_steady({"A": lambda: 1e-3}, ScriptedTimer(), WARM, lambda *_: None, peers)["A"]
    assert found.median_s == pytest.approx(3e-3)


SLOWED = GpuState(1.2e9, 700.0, 70.0, ("SwPowerCap",))


@pytest.fixture
def repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Pass, Trial]]:
    """One pass of a small case whose repeat finds T1 twice as slow as whatever turns found."""

    def run(gpu: GpuState | None = SLOWED, **settings: object) -> tuple[Pass, Trial]:
        def twice(calls: dict[str, Callable[[], object]], *rest: object) -> dict[str, Alone]:
            for key in calls:
                rest[2]("alone until steady", key)  # type: ignore[operator]  # announce
            return {key: alone(100.0 if place == 0 else 1.0) for place, key in enumerate(calls)}

        monkeypatch.setattr("bench.pass_runner.alone_until_steady", twice)
        one = Pass(tmp_path)
        asked = replace(SETTINGS, **{"rounds": 8, "warm_up_s": 1e-9} | settings)  # type: ignore[arg-type]
        return one, one.run(small_case(), settings=asked, gpu_now=lambda: gpu)

    return run


def test_a_doubtful_case_is_repeated_and_the_row_says_what_changed(
    repeated: Callable[..., tuple[Pass, Trial]],
) -> None:
    one, trial = repeated()
    assert [m.alone_s for m in trial.measurements] == [100.0, 1.0, 1.0]
    disagreeing = [any(flag.startswith(f"{DISAGREES}: 100.000x alone") for flag in m.flags) for m in trial.measurements]
    assert disagreeing == [False, True, True], "T1 is compared with nothing"
    steps = [step for step in one.steps if step.detail == ALONE_UNTIL_STEADY]
    assert [(step.phase, step.variant_id) for step in steps] == [("measure", m.variant_id) for m in trial.measurements]
    assert from_record(to_record(trial)) == trial


@pytest.mark.parametrize("settings", [{"repeat_doubtful": False}, {"warm_up_s": 0.0}])
def test_nothing_is_repeated_where_nobody_asked(
    repeated: Callable[..., tuple[Pass, Trial]], settings: dict[str, object]
) -> None:
    _, trial = repeated(**settings)
    assert any(m.flags for m in trial.measurements)
    assert {m.alone_s for m in trial.measurements} == {None}


def test_a_case_without_a_doubt_is_not_repeated(
    repeated: Callable[..., tuple[Pass, Trial]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.measure.protocol.unsettled", lambda taken: None)  # a busy CPU's may drift
    _, trial = repeated(gpu=None)
    assert {m.alone_s for m in trial.measurements} == {None}
