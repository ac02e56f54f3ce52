"""When a series counts as steady: drifts of known size under noise of known size."""

import random

import pytest

from bench.measure.steady import LEAST_WINDOW, drift


def test_too_short_a_series_is_not_judged() -> None:
    assert drift([1.0] * (2 * LEAST_WINDOW - 1)) is None
    assert drift([1.0] * (2 * LEAST_WINDOW)) is not None


@pytest.mark.parametrize("slope", [0.004, -0.004, 0.02])
def test_a_line_is_never_steady_and_its_change_is_a_windows_worth(slope: float) -> None:
    for length in (10, 20, 100):
        found = drift([1 + slope * call for call in range(length)])
        window = max(LEAST_WINDOW, length // 4)
        assert found is not None
        assert found.change == pytest.approx(slope * window / (1 + slope * (length - 1 - 1.5 * window + 0.5)))
        assert not found.steady


def test_a_step_is_forgotten_once_the_last_half_is_behind_it() -> None:
    assert [drift([2.0] * 10 + [1.0] * more).steady for more in (4, 6, 10, 40)] == [False, False, True, True]


def test_one_hiccup_is_no_drift() -> None:
    assert drift([1.0] * 18 + [5.0] + [1.0]).steady


@pytest.mark.parametrize("sd", [0.003, 0.03, 0.1])
def test_noise_alone_is_steady_as_a_rule_and_noise_is_not_underestimated(sd: float) -> None:
    """Two standard errors: some 5 % of noisy series would be told to go on; small windows make it more."""
    draw = random.Random(7)
    found = [drift([1 + draw.gauss(0, sd) for _ in range(40)]) for _ in range(500)]
    assert sum(one.steady for one in found) > 0.9 * len(found)
    spread = (sum(one.change**2 for one in found) / len(found)) ** 0.5
    assert sum(one.noise for one in found) / len(found) == pytest.approx(spread, rel=0.25)


def test_a_few_noisy_calls_are_neither_drifting_nor_steady() -> None:
    series = [1.0, 1.5, 0.7, 1.2, 0.8, 1.6, 0.9, 0.6, 1.4, 1.3]
    found = drift(series)
    assert (found.seen, found.steady) == (False, False)
    found = drift(series * 4)
    assert (found.seen, found.steady) == (False, True)


def test_a_drift_of_twice_the_noise_is_found_as_a_rule() -> None:
    draw = random.Random(8)
    found = [drift([1 + 0.1 * (call >= 30) + draw.gauss(0, 0.05) for call in range(40)]) for _ in range(200)]
    assert sum(not one.steady for one in found) > 0.9 * len(found)


def test_calls_below_the_clocks_resolution_do_not_drift() -> None:
    assert drift([0.0] * 20).steady
