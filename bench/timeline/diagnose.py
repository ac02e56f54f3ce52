"""Why communication is not hidden: causes with their evidence, the most telling first.

Each cause is looked for by what it does to the timeline; none is guessed from a configuration. Times are shares of the
exposed communication (or of the span, where said).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.timeline.attribute import COMM, COMPUTE, Attributed
from bench.timeline.held_back import FULL, PRIORITY, QUEUE, held_back
from bench.timeline.intervals import intersect, union
from bench.timeline.metrics import IterationMetrics, exposed_comm
from bench.timeline.model import UNKNOWN, Work
from bench.timeline.waiting import waiting_for_own_comm

TELLING = 0.05
"""A cause that explains less is not named."""
STARVED = 0.05
"""Of the span: from here on a run is bound by its host."""
HIDDEN_ENOUGH = 0.9
UNNAMED = "annotations missing"


@dataclass(frozen=True)
class Cause:
    """One reason, and what in the timeline says so."""

    name: str
    share: float
    evidence: str
    remedy: str


def diagnose(found: Attributed, measured: Sequence[IterationMetrics]) -> list[Cause]:
    """The causes found, largest share first; none where at least HIDDEN_ENOUGH of communication is hidden.

    Work of no known lane goes before all: the rest is a guess then.
    """
    comm, hidden = sum(m.comm_ns for m in measured), sum(m.overlapped_ns for m in measured)
    if comm and hidden >= HIDDEN_ENOUGH * comm:
        return []
    causes = (cause for look in LOOKS for cause in look(found, measured))
    telling = (cause for cause in causes if cause.share >= TELLING)
    return sorted(telling, key=lambda cause: (cause.name != UNNAMED, -cause.share))


def _unnamed(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    """Annotations missing: nothing can be said of work that no rule knows."""
    busy, unknown = sum(m.busy_ns for m in measured), sum(m.unknown_ns for m in measured)
    yield Cause(
        UNNAMED,
        unknown / busy if busy else 0.0,
        f"{unknown / max(busy, 1):.0%} of busy time is of no known lane",
        "annotate the program, or name its ranges, streams or kernels in a --map file",
    )


def _no_communication(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    if any(m.comm_ns for m in measured):
        return
    yield Cause("no communication", 1.0, "no work of the communication lane was found", "check the rules")


def _same_stream(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    """What is on one stream runs one after the other. A replay's streams are the device's choice, no order of work."""
    work, chosen = found.profile.work, ~_by_graphs(found.profile.work)
    compute = np.unique(work.stream[chosen & (found.lane == COMPUTE)])
    alone = chosen & (found.lane == COMM) & np.isin(work.stream, compute)
    comm = found.lane == COMM
    if not comm.any():
        return
    length = work.end_ns - work.start_ns
    share = float(length[alone].sum() / max(1, length[comm].sum()))
    streams = ", ".join(str(stream) for stream in np.unique(work.stream[alone]).tolist())
    yield Cause(
        "same stream",
        share,
        f"{share:.0%} of communication time is on a stream that computes, too (stream {streams})",
        "issue communication on a stream of its own",
    )


def _host_waits(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    """A wait of the launching thread inside an iteration: until it ends nothing more is launched."""
    work, waits = found.profile.work, found.profile.waits
    exposed = exposed_comm(work, found.lane)
    if not len(waits) or not len(exposed):
        return
    threads = np.unique(work.thread[work.thread != UNKNOWN])
    inside = np.isin(waits.thread, threads)
    # The wait that ends the last iteration holds nothing back.
    inside &= waits.start_ns < min(measured[-1].begin_ns + measured[-1].span_ns, int(work.launch_ns.max()))
    waiting = union(waits.start_ns[inside], waits.end_ns[inside])
    share = intersect(exposed, waiting).total_ns / exposed.total_ns
    names = ", ".join(found.profile.names.text(n) for n in np.unique(waits.name[inside]).tolist())
    yield Cause(
        "host waits",
        share,
        f"the launching thread waited {int(inside.sum())} times ({names}) during {share:.0%} of exposed communication",
        "remove the synchronisation, or issue the other batch's work before it",
    )


def _starved(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    """The GPU idles because the host has launched nothing."""
    span, starved = sum(m.span_ns for m in measured), sum(m.starved_ns for m in measured)
    share = starved / span if span else 0.0
    if share < STARVED:
        return
    yield Cause(
        "launch-starved",
        share,
        f"for {share:.0%} of the span the GPU was idle before the next kernel was even launched",
        "more tokens, a CUDA graph, or a faster host: this is the host's speed, not TBO's",
    )


def _held_back(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    """Communication that could have begun and did not, by what it waited for."""
    held = held_back(found)
    for what, (name, evidence, remedy) in HELD_BACK.items():
        told = f"{held.count(what)} of {len(held.cause)} communications were launched and their stream was free, but"
        yield Cause(name, held.share(what), f"{told} {evidence}", remedy)


HELD_BACK = {
    FULL: (
        "a compute kernel fills all SMs",
        "they began only when the compute kernel that ran had ended",
        "leave SMs free (reserve_sms), or a kernel of many short blocks beside a high comm_priority",
    ),
    PRIORITY: (
        "stream priority",
        "compute that was launched after them went first, or they began late inside a compute kernel",
        "give the communication stream a high priority (comm_priority), or leave SMs free (reserve_sms)",
    ),
    QUEUE: (
        "serialised queues",
        "they began only after all compute that was launched before them on other streams had begun",
        "set CUDA_DEVICE_MAX_CONNECTIONS to 8 or more, or unset it: at 1 all streams share one hardware queue",
    ),
}
"""What held_back tells apart -> name, evidence, remedy."""


def _no_other_work(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    """Compute that was launched and waited for the very communication that is exposed: the schedule's own limit."""
    work = found.profile.work
    exposed = exposed_comm(work, found.lane)
    if not len(exposed):
        return
    share = intersect(exposed, waiting_for_own_comm(found)).total_ns / exposed.total_ns
    yield Cause(
        "nothing else to compute",
        share,
        f"during {share:.0%} of exposed communication all compute that was launched waited for just that communication",
        "the schedule has no other work there: another order or split_factor, or a faster link",
    )


def _by_graphs(work: Work) -> NDArray[np.bool_]:
    """Which work was launched together with other work."""
    launches, pieces = np.unique(work.launch_ns, return_counts=True)
    return np.isin(work.launch_ns, launches[(pieces > 1) & (launches != UNKNOWN)])


def _merged_graph(found: Attributed, measured: Sequence[IterationMetrics]) -> Iterator[Cause]:
    """One launch started compute and communication, and these ran one after the other."""
    work = found.profile.work
    comm, by_graphs = found.lane == COMM, _by_graphs(work)
    replayed = comm & np.isin(work.launch_ns, work.launch_ns[by_graphs & (found.lane == COMPUTE)])
    length = work.end_ns - work.start_ns
    share = float(length[replayed].sum() / max(1, length[comm].sum()))
    if not replayed.any() or sum(m.overlapped_ns for m in measured) >= TELLING * sum(m.comm_ns for m in measured):
        return
    yield Cause(
        "a graph that merged the schedule",
        share,
        f"{share:.0%} of communication time was launched by graphs that hold compute, too, and ran beside none of it",
        "look at the capture: streams must fork from it and join it by events alone, and the schedule must overlap",
    )


Look = Callable[[Attributed, Sequence[IterationMetrics]], Iterator[Cause]]
LOOKS: tuple[Look, ...] = (
    _unnamed,
    _no_communication,
    _same_stream,
    _merged_graph,
    _host_waits,
    _starved,
    _held_back,
    _no_other_work,
)
