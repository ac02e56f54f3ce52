"""Launch ``graph``: what a variant would issue, captured once as a CUDA graph on the same two lanes, and replayed.

The schedule, its bodies and its lanes are those of launch ``eager``; the events between lanes become the graph's edges,
and each kernel keeps the priority of the stream it was captured on (torch 2.10). A replay issues no op: one launch.
"""

import functools
import gc
from collections.abc import Callable
from dataclasses import fields
from typing import Generic, TypeVar

import torch
from torch import Tensor

from moe_impl.device_memory import fill_with_nan
from moe_impl.layer import MoeStages
from moe_impl.options import Variant
from moe_impl.overlap.driver import Around
from moe_impl.variant_run import LayerTrace, VariantRun

Result = TypeVar("Result")
NO_OP = -1
"""A replay's place in the schedule, as ``progress`` is told: the host issues none of its ops."""


@functools.cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The compute lane of all captures of a process: CUDA's default stream cannot be captured."""
    return torch.cuda.Stream(device=device)


class Captured(Generic[Result]):
    """A captured iteration. Its memory is its own, and reserved as long as this lives; all of it begins as NaN.

    So a kernel that reads what none before it in the graph has written shows in the first replay, as it would in none
    after: inputs do not change, and a replay's memory holds what the one before left.
    """

    def __init__(self, issue: Callable[[], Result], stream: torch.cuda.Stream) -> None:
        gc.collect()  # what it finds must not be freed while capturing
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._result = issue()
        pool = tuple(self._graph.pool())
        segments = [each for each in torch.cuda.memory_snapshot() if tuple(each["segment_pool_id"]) == pool]
        self.pool_bytes: int = sum(each["total_size"] for each in segments)
        """Reserved: what its tensors need at most at a time, and what the allocator loses between them."""
        self._places = [(each["address"], each["total_size"]) for each in segments]
        self._device = stream.device
        self.poison()

    def poison(self) -> None:
        """Fill its memory with NaN, the last replay's result included: each replay must write anew what it reads."""
        for address, size in self._places:
            fill_with_nan(address, size, self._device)

    def __call__(self) -> Result:
        """Replay on the current stream, which waits for both lanes. The result is overwritten by the next replay."""
        self._graph.replay()
        return self._result


class CapturedRun(VariantRun):
    """See :class:`VariantRun`; what a call returns is overwritten by the next."""

    captured = True

    def __init__(self, variant: Variant, stages: MoeStages, x_TH: Tensor, progress: Callable[[int], None]) -> None:
        self._stream = capture_stream(torch.cuda.current_stream(x_TH.device).device)
        self._plain: Captured[Tensor] | None = None
        self._warm = False
        torch.cuda.synchronize()  # the inputs were drawn on another stream
        with torch.cuda.stream(self._stream):
            super().__init__(variant, stages, x_TH, progress)
        torch.cuda.synchronize()

    def ready(self) -> None:
        if self._plain is None:
            self._plain = self._captured(super().issue)

    def __call__(self, around: Around | None = None) -> Tensor:
        if around is not None:
            final_TH = self.under(around)().clone()
            torch.cuda.synchronize()  # no graph is given up while it runs
            return final_TH
        self.ready()
        assert self._plain is not None
        self._progress(NO_OP)
        return self._plain()

    def issue(self, around: Around | None = None) -> Tensor:
        """Not captured, on the streams that are."""
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            final_TH = super().issue(around)
        torch.cuda.synchronize()
        return final_TH

    def under(self, around: Around) -> Captured[Tensor]:
        """Captured once more, inside these contexts: what they issue is replayed, what they tell the host is not."""
        issue = super().issue
        return self._captured(lambda: issue(around))

    def traced(self) -> tuple[Tensor, list[LayerTrace]]:
        """Of a graph of its own, which keeps each layer's tensors, replayed once."""
        captured = self._captured(super().traced)
        final_TH, traces = captured()
        kept = [LayerTrace(*(getattr(trace, spec.name).clone() for spec in fields(LayerTrace))) for trace in traces]
        kept_final_TH = final_TH.clone()
        torch.cuda.synchronize()  # no graph is given up while it runs
        return kept_final_TH, kept

    @property
    def pool_bytes(self) -> int | None:
        return None if self._plain is None else self._plain.pool_bytes

    def _captured(self, issue: Callable[[], Result]) -> Captured[Result]:
        """After one eager iteration on the same streams: kernels are compiled and libraries have their workspaces."""
        if not self._warm:
            self.issue()
            self._warm = True
        return Captured(issue, self._stream)
