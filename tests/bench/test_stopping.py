"""The interval of a pass's ratio, against brute force, and how often it covers the truth."""

import random
from itertools import product
from statistics import median

import pytest

from bench.measure.stopping import known_within


@pytest.mark.parametrize("num", [6, 7, 9, 10, 13])
def test_the_interval_is_the_narrowest_pair_of_ranks_that_covers_95_percent(num: int) -> None:
    """By counting, over all patterns of signs, how often the median lies between the two order statistics."""
    below = [sum(signs) for signs in product((0, 1), repeat=num)]
    cover = {rank: sum(rank <= n <= num - rank for n in below) / len(below) for rank in range(1, num // 2 + 1)}
    rank = max(rank for rank, share in cover.items() if share >= 0.95)
    logs = [draw**3 for draw in range(num)]
    middle = median(logs)
    assert known_within(logs) == max(middle - logs[rank - 1], logs[num - rank] - middle)


def test_five_logs_have_no_interval() -> None:
    assert known_within([]) is None
    assert known_within([1.0] * 5) is None
    assert known_within([1.0] * 6) == 0.0


def test_the_median_lies_that_near_to_the_truth_at_least_95_times_in_100() -> None:
    """Skewed noise, median 0: what the host does to a sample is never symmetric."""
    draw = random.Random(5)
    hits = 0
    for _ in range(1000):
        logs = [draw.expovariate(1.0) - 0.6931471805599453 for _ in range(30)]
        hits += abs(median(logs)) <= known_within(logs)
    assert hits >= 950


def test_thousands_of_logs_are_no_trouble() -> None:
    draw = random.Random(6)
    assert known_within([draw.gauss(0, 1) for _ in range(5000)]) == pytest.approx(1.96 * 1.2533 / 5000**0.5, rel=0.2)
