"""Unions and intersections of intervals, against sets of whole nanoseconds."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.timeline.intervals import Intervals, complement, intersect, subtract, union

PAIRS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


def made(pairs: list[tuple[int, int]]) -> Intervals:
    table = np.array(pairs, dtype=np.int64).reshape(len(pairs), 2)
    return union(table[:, 0], table[:, 1])


def covered(pairs: list[tuple[int, int]]) -> set[int]:
    return {moment for start, end in pairs for moment in range(start, end)}


def moments(intervals: Intervals) -> set[int]:
    pairs = list(zip(intervals.start_ns.tolist(), intervals.end_ns.tolist(), strict=True))
    assert all(start < end for start, end in pairs), "none empty"
    assert all(one[1] < other[0] for one, other in itertools.pairwise(pairs)), "disjoint, not touching, rising"
    assert intervals.total_ns == sum(end - start for start, end in pairs)
    return covered(pairs)


@given(PAIRS)
def test_a_union_covers_what_its_parts_cover(pairs: list[tuple[int, int]]) -> None:
    assert moments(made(pairs)) == covered(pairs)


@given(PAIRS, PAIRS)
def test_set_algebra(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    assert moments(intersect(made(one), made(other))) == covered(one) & covered(other)
    assert moments(subtract(made(one), made(other))) == covered(one) - covered(other)
    assert moments(complement(made(one), 5, 30)) == set(range(5, 30)) - covered(one)
