"""Waiting for what another process does."""

import time
from collections.abc import Callable


def wait_for(happened: Callable[[], bool], limit_s: float = 30) -> None:
    """Until it holds; fails if that takes longer than ``limit_s``."""
    deadline_s = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.02)
