"""Which range a host thread was in at a moment."""

from dataclasses import dataclass

import numpy as np

from bench.timeline.model import UNKNOWN, Column, Ranges, Work


@dataclass(eq=False)
class Nesting:
    """Ranges as trees, one forest a thread."""

    parent: Column
    """Of each range: the range around it, UNKNOWN for an outermost one."""
    depth: Column
    inner: Column
    """For each piece of work: the innermost range around its launch, UNKNOWN outside of all."""
    captured: Column
    """The same of when it was issued into a graph."""


def nest(ranges: Ranges, work: Work) -> Nesting:
    """Sort, then one sweep a thread: O((R + W) log).

    Ranges that cross (start/end ranges, or a torn profile) are treated as nested by their starts: a range ends at the
    latest where the one around it ends.
    """
    parent = np.full(len(ranges), UNKNOWN, dtype=np.int64)
    depth = np.zeros(len(ranges), dtype=np.int64)
    inner, captured = (np.full(len(work), UNKNOWN, dtype=np.int64) for _ in range(2))
    for thread in np.unique(ranges.thread):
        mine = np.flatnonzero(ranges.thread == thread)
        # Of two ranges with one start the longer one is around the other.
        mine = mine[np.lexsort((-ranges.end_ns[mine], ranges.start_ns[mine]))]
        times, current = _sweep(mine, ranges, parent, depth)
        for innermost, moments in ((inner, work.launch_ns), (captured, work.captured_ns)):
            known = np.flatnonzero((work.thread == thread) & (moments != UNKNOWN))
            at = np.searchsorted(times, moments[known], side="right") - 1
            innermost[known] = np.where(at >= 0, current[np.maximum(at, 0)], UNKNOWN)
    return Nesting(parent, depth, inner, captured)


def _sweep(mine: Column, ranges: Ranges, parent: Column, depth: Column) -> tuple[Column, Column]:
    """Times at which the innermost range of a thread changes, and which one it then is. Fills parent and depth."""
    times: list[int] = []
    current: list[int] = []
    open_ranges: list[tuple[int, int]] = []  # (end, range), outermost first

    def close_until(now: int) -> None:
        while open_ranges and open_ranges[-1][0] <= now:
            end, _ = open_ranges.pop()
            times.append(end)
            current.append(open_ranges[-1][1] if open_ranges else UNKNOWN)

    for index, start, end in zip(
        mine.tolist(), ranges.start_ns[mine].tolist(), ranges.end_ns[mine].tolist(), strict=True
    ):
        close_until(start)
        if open_ranges:
            around_end, around = open_ranges[-1]
            parent[index], end = around, min(end, around_end)
            depth[index] = depth[around] + 1
        open_ranges.append((end, index))
        times.append(start)
        current.append(index)
    close_until(np.iinfo(np.int64).max)
    return np.array(times, dtype=np.int64), np.array(current, dtype=np.int64)
