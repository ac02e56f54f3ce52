"""Why communication is not hidden: causes with their evidence, the most telling first.

Each cause is looked for by what it does to the timeline; none is guessed from a configuration. Times are shares of the
exposed communication (or of the span, where said).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.timeline.attribute import COMM, COMPUTE, Attributed
from bench.timeline.intervals import intersect, union
from bench.timeline.metrics import IterationMetrics, exposed_comm
from bench.timeline.model import UNKNOWN

TELLING = 0.05
"""A cause that explains less is not named."""
STARVED = 0.05
"""Of the span: what ``host_bound`` means (DESIGN section 2)."""
RELEASED_NS = 5_000
"""A kernel that starts so soon after another one ended was waiting for it: a kernel's start takes 1 to 3 us."""
HIDDEN_ENOUGH = 0.9


@dataclass(frozen=True)
class Cause:
    """One reason, and what in the timeline says so."""

    name: str
    share: float
    evidence: str
    remedy: str


def diagnose(found: Attributed, measured: Sequence[IterationMetrics]) -> list[Cause]:
    """The causes found, largest share first; none where at least HIDDEN_ENOUGH of communication is hidden."""
    comm, hidden = sum(m.comm_ns for m in measured), sum(m.overlapped_ns for m in measured)
    if comm and hidden >= HIDDEN_ENOUGH * comm:
        return []
    causes = (cause for look in LOOKS if (cause := look(found, measured)) is not None)
    return sorted((cause for cause in causes if cause.share >= TELLING), key=lambda cause: -cause.share)


def _unnamed(found: Attributed, measured: Sequence[IterationMetrics]) -> Cause | None:
    """Annotations missing: nothing can be said of work that no rule knows."""
    busy, unknown = sum(m.busy_ns for m in measured), sum(m.unknown_ns for m in measured)
    return Cause(
        "annotations missing",
        unknown / busy if busy else 0.0,
        f"{unknown / max(busy, 1):.0%} of busy time is of no known lane",
        "annotate the program, or name its ranges, streams or kernels in a --map file",
    )


def _no_communication(found: Attributed, measured: Sequence[IterationMetrics]) -> Cause | None:
    if any(m.comm_ns for m in measured):
        return None
    return Cause("no communication", 1.0, "no work of the communication lane was found", "check the rules")


def _same_stream(found: Attributed, measured: Sequence[IterationMetrics]) -> Cause | None:
    """What is on one stream runs one after the other."""
    work = found.profile.work
    compute = set(np.unique(work.stream[found.lane == COMPUTE]).tolist())
    alone = (found.lane == COMM) & np.isin(work.stream, list(compute))
    comm = found.lane == COMM
    if not comm.any():
        return None
    length = work.end_ns - work.start_ns
    share = float(length[alone].sum() / max(1, length[comm].sum()))
    streams = ", ".join(str(stream) for stream in np.unique(work.stream[alone]).tolist())
    return Cause(
        "same stream",
        share,
        f"{share:.0%} of communication time is on a stream that computes, too (stream {streams})",
        "issue communication on a stream of its own",
    )


def _host_waits(found: Attributed, measured: Sequence[IterationMetrics]) -> Cause | None:
    """A wait of the launching thread inside an iteration: until it ends nothing more is launched."""
    work, waits = found.profile.work, found.profile.waits
    exposed = exposed_comm(work, found.lane)
    if not len(waits) or not len(exposed):
        return None
    threads = np.unique(work.thread[work.thread != UNKNOWN])
    inside = np.isin(waits.thread, threads)
    # The wait that ends the last iteration holds nothing back.
    inside &= waits.start_ns < min(measured[-1].begin_ns + measured[-1].span_ns, int(work.launch_ns.max()))
    waiting = union(waits.start_ns[inside], waits.end_ns[inside])
    share = intersect(exposed, waiting).total_ns / exposed.total_ns
    names = ", ".join(found.profile.names.text(n) for n in np.unique(waits.name[inside]).tolist())
    return Cause(
        "host waits",
        share,
        f"the launching thread waited {int(inside.sum())} times ({names}) during {share:.0%} of exposed communication",
        "remove the synchronisation, or issue the other batch's work before it",
    )


def _starved(found: Attributed, measured: Sequence[IterationMetrics]) -> Cause | None:
    """The GPU idles because the host has launched nothing."""
    span, starved = sum(m.span_ns for m in measured), sum(m.starved_ns for m in measured)
    share = starved / span if span else 0.0
    if share < STARVED:
        return None
    return Cause(
        "launch-starved",
        share,
        f"for {share:.0%} of the span the GPU was idle before the next kernel was even launched",
        "more tokens, a CUDA graph, or a faster host: this is the host's speed, not TBO's",
    )


def _held_back(found: Attributed, measured: Sequence[IterationMetrics]) -> Cause | None:
    """Communication that was launched, whose stream was free, and that began only when compute elsewhere ended."""
    work = found.profile.work
    comm = np.flatnonzero((found.lane == COMM) & (work.launched_ns != UNKNOWN))
    ends = np.sort(work.end_ns[found.lane == COMPUTE])
    if not len(comm) or not len(ends):
        return None
    previous = np.full(len(comm), np.iinfo(np.int64).min, dtype=np.int64)
    for stream in np.unique(work.stream[comm]).tolist():
        on_stream = np.flatnonzero(work.stream == stream)
        latest = np.maximum.accumulate(work.end_ns[on_stream])
        mine = np.flatnonzero(work.stream[comm] == stream)
        before = np.searchsorted(on_stream, comm[mine]) - 1
        previous[mine] = np.where(before >= 0, latest[np.maximum(before, 0)], previous[mine])
    ready = np.maximum(work.launched_ns[comm], previous)
    start = work.start_ns[comm]
    at = np.searchsorted(ends, start, side="right") - 1
    released = (at >= 0) & (start - ends[np.maximum(at, 0)] <= RELEASED_NS) & (ends[np.maximum(at, 0)] > ready)
    waited = np.where(released, start - ready, 0)
    total = int((work.end_ns - work.start_ns)[comm].sum())
    share = float(waited.sum() / max(1, waited.sum() + total))
    return Cause(
        "held back by compute",
        share,
        f"{int(released.sum())} of {len(comm)} communications were launched and their stream was free, "
        "but they began only when a compute kernel ended",
        "leave SMs free (reserve_sms), give the communication stream a high priority, or check "
        "CUDA_DEVICE_MAX_CONNECTIONS: queues may be serialised; a data dependency looks the same",
    )


Look = Callable[[Attributed, Sequence[IterationMetrics]], Cause | None]
LOOKS: tuple[Look, ...] = (_unnamed, _no_communication, _same_stream, _host_waits, _starved, _held_back)
