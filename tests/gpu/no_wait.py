"""Whether the host waits for the device: torch raises at whatever would make it wait."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def no_wait() -> Iterator[None]:
    """From an idle device on, a synchronisation that torch knows of is an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
