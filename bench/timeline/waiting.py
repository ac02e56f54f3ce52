"""When compute that was launched waited for its own micro-batch's communication, and no other compute ran."""

import numpy as np
from numpy.typing import NDArray

from bench.timeline.attribute import COMM, COMPUTE, Attributed
from bench.timeline.held_back import RELEASED_NS
from bench.timeline.intervals import Intervals, complement, union
from bench.timeline.metrics import of_lane
from bench.timeline.model import UNKNOWN, Column


def waiting_for_own_comm(found: Attributed) -> Intervals:
    """The gaps of compute, from the launch of the compute that ends each, where its own communication ends there, too.

    Only communication on another stream counts: on one stream all compute waits for all communication.
    """
    work = found.profile.work
    compute = np.flatnonzero((found.lane == COMPUTE) & (work.launched_ns != UNKNOWN))
    if not len(compute):
        return union(work.start_ns[:0], work.end_ns[:0])
    gaps = complement(of_lane(work, found.lane, COMPUTE), int(work.start_ns.min()), int(work.end_ns.max()))
    at = np.searchsorted(work.start_ns[compute], gaps.end_ns)
    following = compute[np.minimum(at, len(compute) - 1)]
    waits = (at < len(compute)) & _just_received(found, following)
    begins = np.maximum(gaps.start_ns, work.launched_ns[following])[waits]
    return union(np.minimum(begins, gaps.end_ns[waits]), gaps.end_ns[waits])


def _just_received(found: Attributed, compute: Column) -> NDArray[np.bool_]:
    """Whether communication of its micro-batch, on another stream, ended right before each of ``compute`` began."""
    work, ubatch = found.profile.work, found.ubatch
    received = np.zeros(len(compute), dtype=np.bool_)
    for who in np.unique(ubatch[compute]).tolist():
        if who == UNKNOWN:
            continue
        mine = np.flatnonzero(ubatch[compute] == who)
        comm = np.flatnonzero((found.lane == COMM) & (ubatch == who))
        comm = comm[np.argsort(work.end_ns[comm], kind="stable")]
        if not len(comm):
            continue
        start = work.start_ns[compute[mine]]
        last = np.searchsorted(work.end_ns[comm], start, side="right") - 1
        before = comm[np.maximum(last, 0)]
        near = (last >= 0) & (start - work.end_ns[before] <= RELEASED_NS)
        received[mine] = near & (work.stream[before] != work.stream[compute[mine]])
    return received
