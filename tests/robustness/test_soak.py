"""Every engine again and again on a CPU: memory stays flat, and no thread or file descriptor is left behind."""

import gc
import os
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import get_args

import effort
import pytest
import torch

from bench.cases import Case
from bench.targets import Target, Targets
from moe_impl.options import Engine, Link, Receive, Variant, Workload
from moe_impl.shapes import ModelShape

BEGUN = effort.ITERATIONS // 3
"""Iterations before the first look: caches and pools are full by then."""
SLACK_BYTES = 32 * 1024
"""Of Python objects over all iterations that follow; one leaked object an iteration is more in a soak."""
SLACK_RSS_BYTES = 24 * 2**20
"""Of the process: an allocator keeps what it likes."""


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def built() -> Target:
    work = Workload(ModelShape(32, 32, 4, 2), ep_size=2, layers=1, tokens=6, precision="bf16")
    return Targets(torch.device("cpu")).build(Case(work, Link("local"), ()))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.timeout(3600 if effort.SOAK else 120)
@pytest.mark.parametrize("receive", get_args(Receive))
@pytest.mark.parametrize("engine", get_args(Engine))
def test_an_engine_may_run_all_night(built: Target, engine: Engine, receive: Receive) -> None:
    run = built.run(Variant("torch", engine, 2, receive=receive), lambda position: None)
    expected = run().clone()
    for _ in range(BEGUN):
        run()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0], resident_bytes(), threading.active_count(), open_files()
        for _ in range(effort.ITERATIONS - BEGUN):
            out = run()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0], resident_bytes(), threading.active_count(), open_files()
    finally:
        tracemalloc.stop()
    assert torch.equal(out, expected), "the last output is the first"
    print(f"{engine} {receive}: bytes of objects, of the process, threads, files: {before} -> {after}")
    if "coverage" not in sys.modules:  # whose tracer keeps about a kilobyte of every thread that it saw
        assert after[0] - before[0] < SLACK_BYTES
    assert after[1] - before[1] < SLACK_RSS_BYTES
    assert after[2:] == before[2:]


def test_a_leak_would_be_seen(built: Target) -> None:
    """The soak's own measure, on something that keeps a little of every iteration."""
    kept: list[bytearray] = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(effort.ITERATIONS - BEGUN):
            kept.append(bytearray(2048))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown > SLACK_BYTES
