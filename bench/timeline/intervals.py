"""Sets of intervals of time, as sorted arrays that do not touch or overlap. Lengths are never sums of overlaps."""

from dataclasses import dataclass

import numpy as np

from bench.timeline.model import Column


@dataclass(eq=False, frozen=True)
class Intervals:
    """[start, end) pairs, rising, disjoint, none empty."""

    start_ns: Column
    end_ns: Column

    @property
    def total_ns(self) -> int:
        """Length of the union."""
        return int((self.end_ns - self.start_ns).sum())

    def __len__(self) -> int:
        return len(self.start_ns)


def union(start_ns: Column, end_ns: Column) -> Intervals:
    """The union of any intervals; empty ones vanish."""
    some = end_ns > start_ns
    start, end = start_ns[some], end_ns[some]
    if not len(start):
        return Intervals(start, end)
    order = np.argsort(start, kind="stable")
    start, reached = start[order], np.maximum.accumulate(end[order])
    first = np.concatenate(([True], start[1:] > reached[:-1]))
    last = np.concatenate((first[1:], [True]))
    return Intervals(start[first], reached[last])


def intersect(one: Intervals, other: Intervals) -> Intervals:
    """Where both are."""
    if not len(one) or not len(other):
        return Intervals(one.start_ns[:0], one.end_ns[:0])
    times = np.concatenate((one.start_ns, other.start_ns, one.end_ns, other.end_ns))
    steps = np.concatenate((np.ones(len(one) + len(other)), -np.ones(len(one) + len(other))))
    order = np.lexsort((steps, times))  # at one time ends go first: touching is not overlapping
    times, level = times[order], np.cumsum(steps[order])
    both = level[:-1] >= 2
    return union(times[:-1][both], times[1:][both])


def subtract(one: Intervals, other: Intervals) -> Intervals:
    """Where ``one`` is and ``other`` is not."""
    if not len(one):
        return one
    begin, finish = one.start_ns[0], one.end_ns[-1]
    return intersect(one, complement(other, int(begin), int(finish)))


def complement(one: Intervals, begin_ns: int, end_ns: int) -> Intervals:
    """The rest of a window."""
    start = np.concatenate(([begin_ns], one.end_ns)).astype(np.int64)
    end = np.concatenate((one.start_ns, [end_ns])).astype(np.int64)
    return union(np.clip(start, begin_ns, end_ns), np.clip(end, begin_ns, end_ns))
