"""The same work on many items, in forked processes: they see what this one holds, and only what they find travels."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

MOST_PROCESSES = 8

Item = TypeVar("Item")
Found = TypeVar("Found")

_work: Callable[[Any], Any]
"""Of a forked process."""


def processes() -> int:
    """How many may share some work; 1: none but this one.

    A forked process has one thread; a lock that another held stays locked.
    """
    if sys.platform != "linux" or threading.active_count() > 1:
        return 1
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


def each(work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[Found]:
    """``work(item)`` of each, in order; what one raises is raised here. Items and findings are pickled, work is not."""
    number = processes()
    if number == 1:
        yield from map(work, items)
        return
    with multiprocessing.get_context("fork").Pool(number, _begin, (work,)) as pool:
        yield from pool.imap(_one, items)


def _begin(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's


def _one(item: Any) -> Any:
    return _work(item)
