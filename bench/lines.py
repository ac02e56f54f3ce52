"""The lines of results.jsonl as Trials, those of a large file read by several processes at once."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.quick_record import QuickReader
from bench.results import Trial

CHUNK_BYTES = 2**22
LARGE_BYTES = 2**25
"""Below this one process reads a file sooner than several can be started."""
MOST_PROCESSES = 8


def read(path: Path, times_only: bool) -> Iterator[Trial | bytes]:
    """Each whole line in order: its Trial, or its bytes where only bench.results.from_record can say what it is."""
    read_chunk = partial(_read_chunk, path, times_only)
    processes = min(MOST_PROCESSES, _processors())
    if path.stat().st_size < LARGE_BYTES or processes == 1 or not _may_fork():
        for chunk in _chunks(path):
            yield from read_chunk(chunk)
        return
    with multiprocessing.get_context("fork").Pool(processes, _leave_interrupts_to_the_parent) as pool:
        for found in pool.imap(read_chunk, _chunks(path)):
            yield from found


def _chunks(path: Path) -> Iterator[tuple[int, int]]:
    """(first byte, length) of pieces that end with a line; what follows the last newline is none."""
    with path.open("rb") as file:
        start = 0
        while True:
            file.seek(start + CHUNK_BYTES)
            file.readline()
            end = file.tell()
            file.seek(start)
            length = file.read(end - start).rfind(b"\n") + 1
            if not length:
                return
            yield start, length
            start += length


def _read_chunk(path: Path, times_only: bool, chunk: tuple[int, int]) -> list[Trial | bytes]:
    start, length = chunk
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read(length).split(b"\n")[:-1]
    reader = QuickReader(times_only)
    return [reader.read(line) or line for line in lines]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _may_fork() -> bool:
    """A forked process has one thread; a lock that another held stays locked."""
    return sys.platform == "linux" and threading.active_count() == 1


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
