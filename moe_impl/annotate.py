"""Name what runs: an NVTX range (Nsight) and a profiler range (Kineto records no NVTX) around each op.

Layer and micro-batch are reopened around every op, because one host thread alternates micro-batches. Off while timing:
the driver then gets no ``around`` at all. Off, too, where no profiler looks.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from moe_impl.overlap.driver import Around
from moe_impl.overlap.schedule import Op

DOMAIN = "moe_tbo"
INJECTION = "NVTX_INJECTION64_PATH"
"""Set in the environment of a process that Nsight Systems or Nsight Compute runs."""

try:
    import nvtx
except ImportError:  # a range is a comfort: without the package only the profiler sees names
    nvtx = None


@contextmanager
def annotate(name: str, category: str, payload: int | None = None) -> Iterator[None]:
    """One range in both tools.

    Args:
        name: shown, such as ``gemm1 layer 2 ubatch 1``.
        category: the stage (only stage ranges are attributed), or ``iteration``.
        payload: layer * 1000 + micro-batch for a stage, so that a trace needs no text parsing.
    """
    with torch.profiler.record_function(f"{DOMAIN}/{name}"):
        if nvtx is None:
            yield
        else:
            with nvtx.annotate(message=name, domain=DOMAIN, category=category, payload=payload):
                yield


@contextmanager
def annotated_op(position: int, op: Op) -> Iterator[None]:
    """The driver's ``around``: stage inside micro-batch inside layer."""
    with (
        annotate(f"layer {op.layer}", "layer", op.layer),
        annotate(f"ubatch {op.ubatch}", "ubatch", op.ubatch),
        annotate(f"{op.stage} layer {op.layer} ubatch {op.ubatch}", str(op.stage), op.layer * 1000 + op.ubatch),
    ):
        yield


def watched() -> bool:
    """Some profiler sees ranges now: torch's, or an Nsight tool that runs this process."""
    return bool(torch.autograd._profiler_enabled()) or INJECTION in os.environ


def annotated(around: Around) -> Around:
    """``around`` inside the op's ranges, or ``around`` itself where no one would see them."""
    if not watched():
        return around

    @contextmanager
    def both(position: int, op: Op) -> Iterator[None]:
        with annotated_op(position, op), around(position, op):
            yield

    return both


@contextmanager
def annotated_iteration(label: str, index: int) -> Iterator[None]:
    """Encloses all ops of one iteration of a variant."""
    if not watched():
        yield
        return
    with iteration_range(label, index):
        yield


def iteration_range(label: str, index: int) -> AbstractContextManager[None]:
    """The same for a process that knows that it is watched."""
    return annotate(f"iteration {index} {label}", "iteration", index)
