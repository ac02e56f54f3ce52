"""Paired statistics: known ratios, drift, intervals. How often identical code gets a verdict: test_calibration."""

import math
import random

import pytest

from bench.deciding import stats


def test_a_block_compares_the_means_of_its_two_mirrored_samples() -> None:
    assert stats.paired_logs([2.0, 4.0, 6.0, 6.0], [1.0, 2.0, 3.0, 1.0]) == pytest.approx([math.log(2), math.log(3)])


def test_linear_drift_within_a_mirrored_block_cancels() -> None:
    drift = [1 + 0.01 * place for place in range(4)]  # places A B B A
    off, on = [drift[0], drift[3]], [drift[1], drift[2]]
    assert stats.paired_logs(off, on) == pytest.approx([0.0])


@pytest.mark.parametrize(("off", "on"), [([1.0, 1.0], [1.0]), ([1.0], [1.0]), ([], [])])
def test_samples_that_are_no_whole_blocks_are_refused(off: list[float], on: list[float]) -> None:
    with pytest.raises(ValueError, match="blocks"):
        stats.paired_logs(off, on)


def test_no_pass_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pass"):
        stats.estimate([])


def test_one_pass_has_a_speedup_but_no_interval() -> None:
    found = stats.estimate([[math.log(1.5)]])
    assert found.speedup == pytest.approx(1.5)
    assert (found.low, found.high, found.min_detectable, found.between_sd, found.within_sd) == (None,) * 5


@pytest.mark.parametrize(
    ("passes", "confidence", "t"),
    # Student's t, two-sided: tables of any textbook
    [(2, 0.99, 63.657), (4, 0.99, 5.841), (5, 0.95, 2.776), (8, 0.95, 2.365)],
)
def test_the_interval_is_students_t_over_pass_means(passes: int, confidence: float, t: float) -> None:
    logs = [0.01 * (-1) ** i for i in range(passes)]
    found = stats.estimate([[log] for log in logs])
    mean = sum(logs) / passes
    sd = math.sqrt(sum((log - mean) ** 2 for log in logs) / (passes - 1))
    assert found.confidence == confidence
    assert found.half_width == pytest.approx(t * sd / math.sqrt(passes), rel=5e-4)


def test_the_minimum_detectable_effect_is_found_in_four_of_five_runs() -> None:
    draw = random.Random(3)
    sd, passes = 0.005, 5
    first = stats.estimate([[sd * step] for step in (-1.2649, -0.6325, 0.0, 0.6325, 1.2649)])  # of spread sd
    assert first.between_sd == pytest.approx(sd, rel=1e-3)
    quantiles = 2.776 + 0.941  # Student's t, 4 degrees of freedom: 0.975 and 0.8
    assert first.min_detectable == pytest.approx(math.expm1(quantiles * sd / math.sqrt(passes)), rel=1e-3)
    effect = math.log1p(first.min_detectable or 0)
    runs = [stats.estimate([[draw.gauss(effect, sd)] for _ in range(passes)]) for _ in range(2000)]
    assert 0.72 <= sum((run.low or 0) > 1 for run in runs) / len(runs) <= 0.85


def test_within_and_between_pass_spread_are_told_apart() -> None:
    found = stats.estimate([[0.0, 0.02], [0.1, 0.12]])
    assert found.within_sd == pytest.approx(math.sqrt(2) * 0.01)
    assert found.between_sd == pytest.approx(math.sqrt(2) * 0.05)


def test_the_p_value_and_the_interval_say_the_same() -> None:
    for shift in (0.0, 0.003, 0.006, 0.012):
        found = stats.estimate([[shift + 0.005 * step] for step in (-1.2, -0.6, 0.0, 0.6, 1.2)])
        assert (found.p_value < 0.05) == (found.low > 1)
    t = 2.7764  # Student's t, 4 degrees of freedom, 0.975
    just = stats.estimate([[t / math.sqrt(5) + step] for step in (-1.2649, -0.6325, 0.0, 0.6325, 1.2649)])
    assert just.p_value == pytest.approx(0.05, rel=1e-3)
    assert stats.estimate([[0.1]]).p_value is None
    assert (stats.estimate([[0.0], [0.0]]).p_value, stats.estimate([[0.1], [0.1]]).p_value) == (1.0, 0.0)


def test_the_95_percent_interval_covers_the_truth_as_often_as_it_says() -> None:
    draw = random.Random(7)
    covered = 0
    for _ in range(2000):
        found = stats.estimate([[draw.gauss(0.02, 0.005)] for _ in range(5)])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= math.exp(0.02) <= found.high
    assert 0.935 <= covered / 2000 <= 0.965
