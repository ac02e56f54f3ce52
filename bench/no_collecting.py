"""Keep the cycle collector out: of a sample, and of a verb that holds a whole run, whose millions of objects it would
search for nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collecting() -> Iterator[None]:
    """For a ``with`` or as a decorator. As it was afterwards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
