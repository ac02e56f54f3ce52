"""Clocks: time one call from the first work it issues to the last that ends, on every stream it uses."""

import time
from collections.abc import Callable
from typing import Protocol

import torch


class Timer(Protocol):
    """One timer per case: samples of different timers are never compared."""

    name: str

    def time_s(self, call: Callable[[], object]) -> float:
        """Seconds of one call, starting from an idle device: launch cost counts (host ``live``)."""
        ...

    def device_time_s(self, call: Callable[[], object]) -> float:
        """Seconds of one call's device work, launches queued beforehand (host ``hidden``): for checks, not verdicts."""
        ...


class HostTimer:
    """A CPU's clock: the call returns when its work is done."""

    name = "host"

    def time_s(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    device_time_s = time_s


def timer_for(device: torch.device) -> Timer:
    """CUDA events on a GPU, the host's clock on a CPU."""
    if device.type == "cuda":
        from bench.measure.cuda_timer import CudaEventTimer

        return CudaEventTimer()
    return HostTimer()
