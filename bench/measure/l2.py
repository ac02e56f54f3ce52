"""Cold L2: push out what is in the cache, and prove that it went. CUDA only."""

from collections.abc import Callable

import torch

from bench import units

FLUSH_TIMES_L2 = 2
"""Twice the cache: a write of exactly its size leaves what the replacement policy happens to keep."""
PROBED_SHARE = 0.4
"""Of the cache: fits surely, and is read in microseconds that a timer resolves."""
COLD_OVER_HOT = 1.1
"""Reading what was flushed must take at least so many times as long as reading it from the cache."""
UNPROVED = "L2 flush is not proved to work"
"""The doubt of samples that were to be cold."""


class L2Flush:
    """Writes a buffer of its own, sized from the device. Call it once the inputs are built, before the clock starts."""

    def __init__(self, device: torch.device) -> None:
        self.l2_bytes = int(torch.cuda.get_device_properties(device).L2_cache_size)
        self._buffer = torch.empty(FLUSH_TIMES_L2 * self.l2_bytes, dtype=torch.int8, device=device)

    def __call__(self) -> None:
        self._buffer.zero_()


def hot_and_cold_s(
    flush: L2Flush, time_s: Callable[[Callable[[], object]], float], device: torch.device
) -> tuple[float, float]:
    """Shortest times of reading a buffer that is in the cache, and the same after a flush: their ratio is the proof."""
    probed = torch.ones(int(PROBED_SHARE * flush.l2_bytes) // 4, dtype=torch.float32, device=device)
    total = torch.empty((), device=device)

    def read() -> None:
        torch.sum(probed, 0, out=total)

    hot, cold = [], []
    for _ in range(20):
        read()
        hot.append(time_s(read))
        flush()
        cold.append(time_s(read))
    return min(hot), min(cold)


def unproved(flush: L2Flush, time_s: Callable[[Callable[[], object]], float], device: torch.device) -> str | None:
    """What to say where a read after a flush is as quick as one before it; None where the flush works."""
    hot_s, cold_s = hot_and_cold_s(flush, time_s, device)
    if cold_s >= COLD_OVER_HOT * hot_s:
        return None
    return f"{UNPROVED}: a read takes {units.format_seconds(hot_s)} hot, {units.format_seconds(cold_s)} flushed"
