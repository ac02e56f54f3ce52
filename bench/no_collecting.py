"""Keep the cycle collector out of a verb that holds a whole run: it would search millions of objects for nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collecting() -> Iterator[None]:
    """For a ``with`` or as a decorator. What a run is read into holds no cycles, so nothing is kept for long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
