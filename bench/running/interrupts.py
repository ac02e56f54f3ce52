"""SIGINT and SIGTERM, caught where they can be answered in order. Torch-free."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bench.errors import BenchError, Exit

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def on_interrupt(handler: Handler) -> Iterator[None]:
    """Answer both signals with ``handler`` inside the block (main thread only), as before after it."""
    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handled_before in previous.items():
            signal.signal(number, handled_before)


def leave(number: int, _frame: FrameType | None) -> None:
    """Handler that leaves from wherever the program is: for code that has nothing to put in order.

    Raises:
        BenchError: always, with exit code 130.
    """
    raise BenchError(f"interrupted by {signal.Signals(number).name}", code=Exit.INTERRUPTED)


class StopRequest:
    """Handler that only remembers: for code that must finish what it holds (a child process, a line half written)."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
