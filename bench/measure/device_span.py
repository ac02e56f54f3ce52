"""The timer against CUPTI: a few iterations timed and profiled at once, after all that is timed for a verdict."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from bench.device_work import DeviceWork
from bench.errors import BenchError
from bench.measure.peers import ALONE, Peers
from bench.measure.timer import Timer
from bench.timeline import kineto

ITERATIONS = 3
WARM_ITERATIONS = 1
"""In the window, but not counted: CUPTI sets up its buffers there."""
HEAD_START = ("at::cuda::", "spin_kernel")
"""In the name of the kernel with which the timer hides the first launch (torch.cuda._sleep): it begins an iteration."""
LONGEST_NAME = 80


@dataclass(frozen=True)
class Piece:
    """A kernel, copy or set."""

    start_ns: int
    end_ns: int
    name: str


def device_works(
    calls: Mapping[str, Callable[[], object]],
    timer: Timer,
    peers: Peers = ALONE,
    announce: Callable[[str | None], None] = lambda key: None,
) -> dict[str, DeviceWork]:
    """Of this rank's GPU, by key. A key is missing where its iterations did not all do as much; all are where no
    profiler is to be had.

    ``announce`` hears of each key before its first call, and None before the profiler collects what it saw: that is
    where CUPTI crashes, and no key is to blame.

    One window for all: profilers that follow one another quickly race. Iterations do not overlap, for the timer waits
    for each.
    """
    os.environ.setdefault("TEARDOWN_CUPTI", "1")  # else CUPTI stays, and later launches are slower
    taken_s: list[float] = []
    try:
        with tempfile.TemporaryDirectory(prefix="bench-span-") as folder:
            trace = Path(folder) / "trace.json"
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                for key, call in calls.items():
                    announce(key)
                    for _ in range(WARM_ITERATIONS + ITERATIONS):
                        peers.align()
                        taken_s.append(timer.device_time_s(call))
                announce(None)
            profiler.export_chrome_trace(str(trace))
            profile = kineto.read(trace)
    except (RuntimeError, BenchError, OSError):
        if peers.size > 1 and len(taken_s) < len(calls) * (WARM_ITERATIONS + ITERATIONS):
            raise  # the other ranks may be waiting: they leave with this one
        torch.cuda.synchronize()  # raises again what was the GPU's fault, and not the profiler's
        return {}
    work = profile.work
    columns = (work.start_ns.tolist(), work.end_ns.tolist(), map(profile.names.text, work.name.tolist()))
    return of_window([Piece(*values) for values in zip(*columns, strict=True)], list(calls), taken_s)


def of_window(pieces: Sequence[Piece], keys: Sequence[str], taken_s: Sequence[float]) -> dict[str, DeviceWork]:
    """The same from the window's pieces by start, and what the timer said of each iteration."""
    iterations: list[list[Piece]] = []
    for piece in pieces:
        if all(word in piece.name for word in HEAD_START):
            iterations.append([])
        elif iterations:
            iterations[-1].append(piece)
    if len(iterations) != len(taken_s):
        return {}
    each = WARM_ITERATIONS + ITERATIONS
    found = {}
    for index, key in enumerate(keys):
        counted = slice(index * each + WARM_ITERATIONS, (index + 1) * each)
        work = _work(iterations[counted], taken_s[counted])
        if work is not None:
            found[key] = work
    return found


def _work(iterations: Sequence[Sequence[Piece]], taken_s: Sequence[float]) -> DeviceWork | None:
    names = [sorted(short(piece.name) for piece in pieces) for pieces in iterations]
    if not names[0] or any(other != names[0] for other in names):
        return None
    spans_ns = [max(p.end_ns for p in pieces) - min(p.start_ns for p in pieces) for pieces in iterations]
    return DeviceWork(median(spans_ns) * 1e-9, median(taken_s), len(names[0]), tuple(dict.fromkeys(names[0])))


def short(name: str) -> str:
    """The name, or its beginning and a digest of the whole: a template's arguments run to hundreds of letters."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"
