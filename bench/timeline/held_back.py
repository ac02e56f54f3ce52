"""Which communication could have begun (launched, its stream free, its own micro-batch's compute done) and did not.

What it waited for is told by what compute did meanwhile:

* FULL: the compute kernel that ran when it was ready ended, and it began: that kernel left no SM.
* PRIORITY: compute that was launched later began before it, or it began late inside a compute kernel, with the SMs
  that the kernel's last blocks left over.
* QUEUE: kernels of the compute stream that were launched before it began and ended first, and no communication of the
  profile ever began before compute that was launched earlier: one queue holds both streams.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.timeline.attribute import COMM, COMPUTE, Attributed
from bench.timeline.model import UNKNOWN, Column, Work

RELEASED_NS = 5_000
"""A kernel that starts so soon after another one ended was waiting for it: a kernel's start takes 1 to 3 us, a wait
for another stream's event up to 5. Who waits no longer is not held back."""
LATE = 0.5
"""Of a compute kernel's length: what waited for so much of it, and began inside it, began late."""
NOT_HELD, FULL, PRIORITY, QUEUE = range(4)
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True)
class HeldBack:
    """One entry for each communication whose launch is known."""

    cause: Column
    """NOT_HELD, FULL, PRIORITY or QUEUE."""
    waited_ns: Column
    """From when it could have started; 0 where it was not held."""
    comm_ns: int
    """What all of them took themselves."""

    def count(self, cause: int) -> int:
        return int((self.cause == cause).sum())

    def share(self, cause: int) -> float:
        """What was waited for this cause, of all waiting and communicating."""
        return float(self.waited_ns[self.cause == cause].sum() / max(1, self.waited_ns.sum() + self.comm_ns))


def held_back(found: Attributed) -> HeldBack:
    """Look at every communication. Micro-batches that the profile does not tell hide what waits for its own data."""
    work = found.profile.work
    comm = np.flatnonzero((found.lane == COMM) & (work.launch_ns != UNKNOWN))
    compute = np.flatnonzero((found.lane == COMPUTE) & (work.launch_ns != UNKNOWN))
    place = _places(work)
    ready = np.maximum(work.launched_ns[comm], _stream_free(work, comm))
    ready = np.maximum(ready, _own_compute_done(work, place, found.ubatch, comm, compute))
    start = work.start_ns[comm]
    released, late = _released(work, compute, start, ready), _late(work, compute, start, ready)
    ahead, overtaken = _went_first(work, place, compute, comm, ready)
    cause = np.where(released, FULL, NOT_HELD)
    cause[released & ahead] = PRIORITY if _any_overtook(work, place, compute, comm) else QUEUE
    cause[late | (released & overtaken)] = PRIORITY
    cause[start - ready <= RELEASED_NS] = NOT_HELD
    waited = np.where(cause == NOT_HELD, 0, start - ready)
    return HeldBack(cause, waited, int((work.end_ns - work.start_ns)[comm].sum()))


def _places(work: Work) -> Column:
    """Each work's place in the order of issue: by its launch, within a graph by when it was captured."""
    places = np.empty(len(work), dtype=np.int64)
    places[np.lexsort((work.captured_ns, work.launch_ns))] = np.arange(len(work))
    return places


def _stream_free(work: Work, comm: Column) -> Column:
    """When the last work that began before it on its stream had ended."""
    free = np.full(len(comm), NEVER, dtype=np.int64)
    for stream in np.unique(work.stream[comm]).tolist():
        on_stream = np.flatnonzero(work.stream == stream)
        latest = np.maximum.accumulate(work.end_ns[on_stream])
        mine = np.flatnonzero(work.stream[comm] == stream)
        before = np.searchsorted(on_stream, comm[mine]) - 1
        free[mine] = np.where(before >= 0, latest[np.maximum(before, 0)], NEVER)
    return free


def _own_compute_done(work: Work, place: Column, ubatch: Column, comm: Column, compute: Column) -> Column:
    """When the compute of its micro-batch that was launched before it had ended: it may move that compute's output."""
    done = np.full(len(comm), NEVER, dtype=np.int64)
    for who in np.unique(ubatch[comm]).tolist():
        if who == UNKNOWN:
            continue
        own, mine = compute[ubatch[compute] == who], np.flatnonzero(ubatch[comm] == who)
        done[mine] = _latest_before(place[own], work.end_ns[own], place[comm[mine]])
    return done


def _latest_before(key: Column, value: Column, at: Column) -> Column:
    """The largest value among those whose key is below each of ``at``; NEVER without one."""
    if not len(key):
        return np.full(len(at), NEVER, dtype=np.int64)
    order = np.argsort(key, kind="stable")
    latest = np.maximum.accumulate(value[order])
    before = np.searchsorted(key[order], at) - 1
    return np.where(before >= 0, latest[np.maximum(before, 0)], NEVER)


def _released(work: Work, compute: Column, start: Column, ready: Column) -> NDArray[np.bool_]:
    """Compute ended right before it began, after it was ready."""
    if not len(compute):
        return np.zeros(len(start), dtype=np.bool_)
    ends = np.sort(work.end_ns[compute])
    at = np.searchsorted(ends, start, side="right") - 1
    end = ends[np.maximum(at, 0)]
    return (at >= 0) & (start - end <= RELEASED_NS) & (end > ready)


def _late(work: Work, compute: Column, start: Column, ready: Column) -> NDArray[np.bool_]:
    """It began inside a compute kernel, of which it had waited for more than LATE."""
    if not len(compute):
        return np.zeros(len(start), dtype=np.bool_)
    at = np.searchsorted(work.start_ns[compute], start) - 1
    running = compute[np.maximum(at, 0)]
    begin, end = work.start_ns[running], work.end_ns[running]
    return (at >= 0) & (end > start) & (start - np.maximum(ready, begin) > LATE * (end - begin))


def _went_first(
    work: Work, place: Column, compute: Column, comm: Column, ready: Column
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(compute launched earlier, compute launched later) began well after it was ready and well before it began itself.

    What began together with either, when the same kernel ended, did not go first.
    """
    starts, start = work.start_ns[compute], work.start_ns[comm]
    first = np.searchsorted(starts, ready + RELEASED_NS, side="right")
    last = np.searchsorted(starts, start - RELEASED_NS, side="right")
    ahead, overtaken = (np.zeros(len(start), dtype=np.bool_) for _ in range(2))
    for row in np.flatnonzero(last > first).tolist():
        between = place[compute[first[row] : last[row]]] < place[comm[row]]
        ahead[row], overtaken[row] = between.any(), not between.all()
    return ahead, overtaken


def _any_overtook(work: Work, place: Column, compute: Column, comm: Column) -> bool:
    """Whether any communication began before compute that was launched earlier, which one queue would not allow."""
    latest = _latest_before(place[compute], work.start_ns[compute], place[comm])
    return bool((latest > work.start_ns[comm]).any())
