"""A soak's measure: what a process holds before and after many iterations of a call, and whether they became slower."""

import gc
import os
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import effort
import pytest
import torch

from bench.environment import describe
from bench.targets import Target
from moe_impl.options import Engine, Launch, Receive, Variant
from moe_impl.support import unsupported_reason

NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
EVERY_ENGINE = pytest.mark.parametrize(
    ("engine", "receive", "launch"), list(product(get_args(Engine), get_args(Receive), get_args(Launch)))
)
BLOCKS = 10
"""Of the first and of the last tenth of the iterations; the fastest of each counts, for a busy neighbour only adds."""
SLOWER = 1.5 if effort.SOAK else 4.0
"""What looks through something that grows is many times slower after thousands of iterations; a few hundred last no
longer than a busy neighbour."""
SLACK_BYTES = 32 * 1024
"""Of Python objects over all iterations; one leaked object an iteration is more in a soak."""
SLACK_RSS_BYTES = 24 * 2**20
"""Of the process: an allocator keeps what it likes."""


@dataclass(frozen=True)
class Held:
    """What may not grow at all."""

    threads: int
    files: int
    streams: int
    events: int
    allocated_bytes: int
    """Of GPU memory, by tensors."""
    reserved_bytes: int
    """Of GPU memory, by torch's allocator."""


@dataclass(frozen=True)
class Soaked:
    """What many iterations did."""

    iterations: int
    before: Held
    after: Held
    object_growth_bytes: int
    resident_growth_bytes: int
    first_s: float
    """An iteration at the beginning."""
    last_s: float

    def said(self) -> str:
        """For people."""
        grown = f"objects {self.object_growth_bytes:+} bytes, process {self.resident_growth_bytes / 2**20:+.1f} MiB"
        times = f"{self.first_s * 1e6:.0f} -> {self.last_s * 1e6:.0f} us an iteration"
        return f"{self.iterations} iterations: {grown}, {times}, {self.before} -> {self.after}"

    def complaint(self) -> str | None:
        """What grew, or None."""
        before, after = asdict(self.before), asdict(self.after)
        grown = {
            "something is held": any(after[name] > before[name] for name in before),
            "Python objects": self.object_growth_bytes > SLACK_BYTES,
            "resident memory": self.resident_growth_bytes > SLACK_RSS_BYTES,
            "time": self.last_s > SLOWER * self.first_s,
        }
        return next((f"{what}: {self.said()}" for what, is_so in grown.items() if is_so), None)


def soak(call: Callable[[], object], iterations: int) -> Soaked:
    """Call it so often, a third of it before the first look: caches and pools are full by then.

    Python objects are traced on a CPU, where an iteration is nothing else; on a GPU that would only slow the soak down.
    """
    for _ in range(iterations // 3):
        call()
    tenth = iterations // 10
    traced = not torch.cuda.is_initialized() and "coverage" not in sys.modules  # which keeps something of every thread
    if traced:
        tracemalloc.start()
    try:
        before, resident, objects = held(), resident_bytes(), tracemalloc.get_traced_memory()[0]
        first_s = fastest_s(call, tenth)
        for _ in range(iterations - iterations // 3 - 2 * tenth):
            call()
        last_s = fastest_s(call, tenth)
        after = held()
        object_growth = tracemalloc.get_traced_memory()[0] - objects
    finally:
        tracemalloc.stop()
    return Soaked(iterations, before, after, object_growth, resident_bytes() - resident, first_s, last_s)


def held() -> Held:
    """Now, with cycles collected and the GPU idle."""
    gc.collect()
    on_gpu = torch.cuda.is_initialized()
    if on_gpu:
        torch.cuda.synchronize()
    kinds = Counter(map(type, gc.get_objects()))
    return Held(
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
        kinds[torch.cuda.Stream],
        kinds[torch.cuda.Event],
        torch.cuda.memory_allocated() if on_gpu else 0,
        torch.cuda.memory_reserved() if on_gpu else 0,
    )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fastest_s(call: Callable[[], object], iterations: int) -> float:
    """Seconds of an iteration in the fastest block."""
    size = iterations // BLOCKS
    seconds = []
    for _ in range(BLOCKS):
        began_s = time.perf_counter()
        for _ in range(size):
            call()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began_s) / size)
    return min(seconds)


def soak_variant(target: Target, variant: Variant, iterations: int) -> None:
    """Nothing grows, and the last output is the first. Skips what cannot run here."""
    if reason := unsupported_reason(target.workload, target.link, variant, describe(target.device)):
        pytest.skip(reason)
    run = target.run(variant, lambda position: None)
    expected = run().clone()
    soaked = soak(run, iterations)
    print(f"{variant.label}: {soaked.said()}")
    assert torch.equal(run(), expected)
    assert soaked.complaint() is None
