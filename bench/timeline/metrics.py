"""What a timeline says of overlap, iteration by iteration. All times are lengths of unions of intervals.

``compute_ns``, ``comm_ns``: something of that lane ran. ``exposed_ns``: communication ran and no compute did.
``blocking_ns``: the part of it in which the next compute had been launched already, so that only communication was in
its way. Idle is split by the next piece of work to start: ``starved_ns`` until the host began to launch it,
``stalled_ns`` after that (it waited for something else). ``unknown_ns`` is work of no known lane.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.timeline.attribute import COMM, COMPUTE, Attributed
from bench.timeline.intervals import Intervals, complement, intersect, subtract, union
from bench.timeline.model import UNKNOWN, Column, Work


@dataclass(frozen=True)
class IterationMetrics:
    """One iteration (or, where the trace has none, all of it)."""

    iteration: int
    """UNKNOWN where the trace tells none."""
    begin_ns: int
    span_ns: int
    """First start to last end."""
    busy_ns: int
    compute_ns: int
    comm_ns: int
    unknown_ns: int
    overlapped_ns: int
    exposed_ns: int
    blocking_ns: int
    starved_ns: int
    stalled_ns: int
    unlaunched_ns: int
    """Idle before work whose launch is unknown."""
    stages_ns: dict[str, int]
    """Stage -> union of its work."""
    work: int
    """Kernels, copies and sets."""
    hand_over_gap_ns: float | None
    """Median host time from one micro-batch's last launch to the next one's first; None without two micro-batches, and
    of a graph's replay, which is one launch."""

    @property
    def idle_ns(self) -> int:
        return self.span_ns - self.busy_ns

    @property
    def overlap(self) -> float | None:
        """Share of communication that was hidden; None without communication."""
        return self.overlapped_ns / self.comm_ns if self.comm_ns else None


def iterations(found: Attributed) -> list[IterationMetrics]:
    """Every iteration that ran something, in order. Work outside all iterations is left out where there are some."""
    numbers = np.unique(found.iteration[found.iteration != UNKNOWN]).tolist()
    if not numbers:
        return [_metrics(found, UNKNOWN, np.ones(len(found.iteration), dtype=np.bool_))]
    return [_metrics(found, number, found.iteration == number) for number in numbers]


def _metrics(found: Attributed, number: int, mine: NDArray[np.bool_]) -> IterationMetrics:
    work = found.profile.work.take(mine)
    lane, stage, ubatch = found.lane[mine], found.stage[mine], found.ubatch[mine]
    begin, end = int(work.start_ns.min()), int(work.end_ns.max())
    busy = union(work.start_ns, work.end_ns)
    compute, comm, unknown = (of_lane(work, lane, which) for which in (COMPUTE, COMM, UNKNOWN))
    exposed = exposed_comm(work, lane)
    starved, unlaunched = _starved(work, complement(busy, begin, end))
    return IterationMetrics(
        iteration=number,
        begin_ns=begin,
        span_ns=end - begin,
        busy_ns=busy.total_ns,
        compute_ns=compute.total_ns,
        comm_ns=comm.total_ns,
        unknown_ns=unknown.total_ns,
        overlapped_ns=intersect(comm, compute).total_ns,
        exposed_ns=exposed.total_ns,
        blocking_ns=_blocking(work, lane, exposed, complement(compute, begin, end)),
        starved_ns=starved,
        stalled_ns=end - begin - busy.total_ns - starved - unlaunched,
        unlaunched_ns=unlaunched,
        stages_ns={
            found.stage_names.text(which): union(work.start_ns[stage == which], work.end_ns[stage == which]).total_ns
            for which in np.unique(stage[stage != UNKNOWN]).tolist()
        },
        work=len(work),
        hand_over_gap_ns=_hand_over_gap(work, ubatch),
    )


def of_lane(work: Work, lane: Column, which: int) -> Intervals:
    """When something of a lane ran."""
    mine = lane == which
    return union(work.start_ns[mine], work.end_ns[mine])


def exposed_comm(work: Work, lane: Column) -> Intervals:
    """When communication ran and no compute did."""
    return subtract(of_lane(work, lane, COMM), of_lane(work, lane, COMPUTE))


def _next(starts: Column, gaps: Intervals) -> Column:
    """For each gap the piece of work that ends it: the first to start at or after its end (work sorted by start)."""
    return np.searchsorted(starts, gaps.end_ns, side="left")


def _starved(work: Work, gaps: Intervals) -> tuple[int, int]:
    """(idle before the launch of what came next, idle before work whose launch is unknown)."""
    if not len(gaps):
        return 0, 0
    following = _next(work.start_ns, gaps)
    launch = work.launch_ns[following]
    length = gaps.end_ns - gaps.start_ns
    starved = np.clip(launch - gaps.start_ns, 0, length)
    unknown = launch == UNKNOWN
    return int(starved[~unknown].sum()), int(length[unknown].sum())


def _blocking(work: Work, lane: Column, exposed: Intervals, gaps: Intervals) -> int:
    """Exposed communication in gaps of compute, from when the compute that ends the gap was launched."""
    compute = work.take(lane == COMPUTE)
    following = _next(compute.start_ns, gaps)
    ends = following < len(compute)  # after the last compute, nothing waits
    launched = compute.launched_ns[np.minimum(following, max(len(compute) - 1, 0))] if len(compute) else gaps.start_ns
    known = ends & (launched != UNKNOWN) if len(compute) else np.zeros(len(gaps), dtype=np.bool_)
    waiting = union(np.maximum(gaps.start_ns, launched)[known], gaps.end_ns[known])
    return intersect(exposed, waiting).total_ns


def _hand_over_gap(work: Work, ubatch: Column) -> float | None:
    known = (ubatch != UNKNOWN) & (work.launch_ns != UNKNOWN) & (work.captured_ns == UNKNOWN)
    order = np.argsort(work.launch_ns[known], kind="stable")
    launch, launched, who = work.launch_ns[known][order], work.launched_ns[known][order], ubatch[known][order]
    changes = who[1:] != who[:-1]
    if not changes.any():
        return None
    return float(np.median((launch[1:] - launched[:-1])[changes]))
