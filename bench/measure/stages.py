"""The instrumented pass: how long each op takes. Slower than the timed pass, hence apart from it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Protocol

import torch

from bench.measure.peers import ALONE, Peers, slowest_of
from bench.results import StageTimes
from moe_impl.annotate import annotated, annotated_iteration
from moe_impl.overlap.schedule import Op, Schedule
from moe_impl.variant_run import VariantRun

ITERATIONS = 3
WARM_ITERATIONS = 1
"""Not recorded: the first stamped one creates its events, and follows other work. Adds a third to this pass: 0.4 s a
case where an iteration takes 75 ms and five variants run, some 7 s to the 8 minutes of DeepSeek-V3's sweep."""
PERTURBED_BEYOND = 0.03
"""The instrumented span may depart this much from the timed median before the row says so."""


class Stamps(Protocol):
    """Start and end of every op of one run."""

    def begin(self) -> None: ...

    @contextmanager
    def around(self, position: int, op: Op) -> Iterator[None]: ...

    def spans_s(self) -> list[tuple[float, float]]:
        """(start, end) of each op in schedule order, seconds since ``begin``."""
        ...


class HostStamps:
    """A CPU runs ops one after the other: its clock around each."""

    def __init__(self, num_ops: int) -> None:
        self._spans = [(0.0, 0.0)] * num_ops

    def begin(self) -> None:
        self._origin = time.perf_counter()

    @contextmanager
    def around(self, position: int, op: Op) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._spans[position] = (started - self._origin, time.perf_counter() - self._origin)

    def spans_s(self) -> list[tuple[float, float]]:
        return list(self._spans)


def stamps_for(device: torch.device, num_ops: int, captured: bool = False) -> Stamps:
    """Events on a GPU, the host's clock on a CPU."""
    if device.type == "cuda":
        from bench.measure.cuda_timer import CudaStamps

        return CudaStamps(num_ops, captured)
    return HostStamps(num_ops)


def stage_times(run: VariantRun, device: torch.device, peers: Peers = ALONE) -> StageTimes:
    """Median duration of every op, and of the span from the first start to the last end, over a few iterations.

    The iterations are annotated for a profiler that watches the process. Of several ranks: see :func:`over_ranks`. A
    captured run is captured once more, with the events in its graph.
    """
    schedule = run.schedule
    stamps = stamps_for(device, len(schedule.ops), run.captured)
    durations: list[list[float]] = []
    spans: list[float] = []
    call = run.under(annotated(stamps.around))
    for _ in range(WARM_ITERATIONS):
        peers.align()
        stamps.begin()
        call()
        stamps.spans_s()  # waits for the device
    for index in range(ITERATIONS):
        peers.align()
        stamps.begin()
        with annotated_iteration(run.label, index):
            call()
        stamped = stamps.spans_s()
        durations.append([end - start for start, end in stamped])
        spans.append(max(end for _, end in stamped) - min(start for start, _ in stamped))
    op_s = [median(times) for times in zip(*durations, strict=True)]
    [span_s] = peers.slowest([median(spans)])
    return StageTimes(span_s, by_stage(schedule, over_ranks(schedule, peers.gather(op_s))))


def over_ranks(schedule: Schedule, of_ranks: list[list[float]]) -> list[float]:
    """One time for every op, from each rank's: of compute the slowest rank's, of communication the fastest's.

    All ranks must have come before a collective ends. The last to come waited for no one: its time is the transfer's,
    and what the others waited is in that rank's compute already.
    """
    slowest_s, fastest_s = slowest_of(of_ranks), [min(values) for values in zip(*of_ranks, strict=True)]
    return [
        fastest_s[position] if op.lane == "comm" else slowest_s[position] for position, op in enumerate(schedule.ops)
    ]


def by_stage(schedule: Schedule, op_s: list[float]) -> dict[str, list[list[float]]]:
    """stage -> [layer][micro-batch] -> seconds."""
    table: dict[str, list[list[float]]] = {}
    for op, seconds in zip(schedule.ops, op_s, strict=True):
        layers = table.setdefault(str(op.stage), [[0.0] * schedule.num_ubatches for _ in range(schedule.layers)])
        layers[op.layer][op.ubatch] = seconds
    return table
