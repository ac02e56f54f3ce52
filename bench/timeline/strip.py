"""What a timeline figure shows of a run: one typical iteration as bars on lanes, and its exposed communication."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.timeline.attribute import Attributed
from bench.timeline.metrics import IterationMetrics, exposed_comm, iterations
from bench.timeline.model import UNKNOWN, Column, Work
from bench.timeline.repeating import Told, with_iterations

MOST_LAYERS = 4
"""More are too narrow to read at 1000 pixels."""
MOST_BARS = 2000


@dataclass(frozen=True)
class Bar:
    """One kernel, copy or set. Times from the iteration's first start."""

    start_ns: int
    end_ns: int
    stage: str
    """Empty: of no known stage."""
    layer: int


@dataclass(frozen=True)
class Lane:
    """A stream's work for one micro-batch, by start."""

    stream: int
    ubatch: int
    """UNKNOWN on a stream that works for no micro-batch."""
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Strip:
    """One iteration, or the beginning of one."""

    lanes: tuple[Lane, ...]
    exposed: tuple[tuple[int, int], ...]
    """(start, end) in nanoseconds: communication ran and no compute did."""
    shown_ns: int
    """Up to here; bars and exposed communication end there at the latest."""
    span_ns: int
    """The whole iteration's, as all below."""
    comm_ns: int
    exposed_ns: int
    told: Told
    iterations: int
    """Recorded; this is the one of median span."""
    layers: int
    """0 where none is known."""
    layers_shown: int


def strip(found: Attributed) -> Strip:
    """The iteration of median span: all of it, or its first MOST_LAYERS layers (MOST_BARS bars).

    Work of no micro-batch joins a lane of its stream, where there is one.
    """
    numbered, told = with_iterations(found)
    measured = iterations(numbered)
    typical = sorted(measured, key=lambda m: m.span_ns)[(len(measured) - 1) // 2]
    mine = numbered.iteration == typical.iteration if told != "untold" else np.ones(len(numbered.lane), dtype=np.bool_)
    work, layer = numbered.profile.work.take(mine), numbered.layer[mine]
    layers = np.unique(layer[layer != UNKNOWN])
    until = _until(work, layer, layers, typical)
    exposed = exposed_comm(work, numbered.lane[mine])
    begin = typical.begin_ns
    return Strip(
        lanes=_lanes(numbered, mine, begin, until),
        exposed=tuple(
            (start - begin, min(end, until) - begin)
            for start, end in zip(exposed.start_ns.tolist(), exposed.end_ns.tolist(), strict=True)
            if start < until
        ),
        shown_ns=until - begin,
        span_ns=typical.span_ns,
        comm_ns=typical.comm_ns,
        exposed_ns=typical.exposed_ns,
        told=told,
        iterations=len(measured),
        layers=len(layers),
        layers_shown=len(np.unique(layer[(layer != UNKNOWN) & (work.start_ns < until)])),
    )


def _until(work: Work, layer: Column, layers: Column, typical: IterationMetrics) -> int:
    """Where the figure ends."""
    until = typical.begin_ns + typical.span_ns
    if len(layers) > MOST_LAYERS:
        until = int(work.end_ns[(layer != UNKNOWN) & (layer <= layers[MOST_LAYERS - 1])].max())
    starts = np.sort(work.start_ns)
    return until if np.searchsorted(starts, until) <= MOST_BARS else int(starts[MOST_BARS])


def _lanes(found: Attributed, mine: NDArray[np.bool_], begin: int, until: int) -> tuple[Lane, ...]:
    work, stage = found.profile.work.take(mine), found.stage[mine]
    layer, ubatch = found.layer[mine], _at_home(work.stream, found.ubatch[mine])
    lanes: dict[tuple[int, int], list[Bar]] = {}
    for row in np.flatnonzero(work.start_ns < until).tolist():
        lanes.setdefault((int(work.stream[row]), int(ubatch[row])), []).append(
            Bar(
                int(work.start_ns[row]) - begin,
                min(int(work.end_ns[row]), until) - begin,
                found.stage_names.text(int(stage[row])),
                int(layer[row]),
            )
        )
    return tuple(Lane(stream, who, tuple(lanes[stream, who])) for stream, who in sorted(lanes))


def _at_home(stream: Column, ubatch: Column) -> Column:
    """Micro-batches, with a stream's first one in place of none."""
    placed = ubatch.copy()
    for one in np.unique(stream).tolist():
        on_stream = stream == one
        known = ubatch[on_stream & (ubatch != UNKNOWN)]
        if len(known):
            placed[on_stream & (ubatch == UNKNOWN)] = known.min()
    return placed
