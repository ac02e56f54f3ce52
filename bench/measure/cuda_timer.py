"""CUDA events around a call, on the compute stream, which every schedule joins before it ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from moe_impl.overlap.schedule import Op

HEAD_START_CYCLES = 1_000_000
"""About half a millisecond in which the host queues what is to be timed."""


class CudaEventTimer:
    """See :class:`bench.measure.timer.Timer`."""

    name = "cuda_event"

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def time_s(self, call: Callable[[], object]) -> float:
        torch.cuda.synchronize()
        return self._between_events_s(call)

    def device_time_s(self, call: Callable[[], object]) -> float:
        torch.cuda.synchronize()
        torch.cuda._sleep(HEAD_START_CYCLES)
        return self._between_events_s(call)

    def _between_events_s(self, call: Callable[[], object]) -> float:
        self._start.record()
        call()
        self._end.record()
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) * 1e-3


class CudaStamps:
    """Events around every op, on the op's own stream.

    Args:
        captured: they are nodes of a graph, which each replay records anew; else a graph takes them for edges.
    """

    def __init__(self, num_ops: int, captured: bool = False) -> None:
        def event() -> torch.cuda.Event:
            return torch.cuda.Event(enable_timing=True, external=captured)

        self._origin = torch.cuda.Event(enable_timing=True)
        self._pairs = [(event(), event()) for _ in range(num_ops)]

    def begin(self) -> None:
        torch.cuda.synchronize()
        self._origin.record()

    @contextmanager
    def around(self, position: int, op: Op) -> Iterator[None]:
        start, end = self._pairs[position]
        start.record()
        yield
        end.record()

    def spans_s(self) -> list[tuple[float, float]]:
        torch.cuda.synchronize()
        return [
            (self._origin.elapsed_time(start) * 1e-3, self._origin.elapsed_time(end) * 1e-3)
            for start, end in self._pairs
        ]
