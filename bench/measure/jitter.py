"""Random delays before ops: other interleavings of threads and streams than an undisturbed run has.

On the host, where it issues each op; where a graph is replayed, on the device: in the op's own stream, captured too.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bench.results import ScheduleSpread
from moe_impl.overlap.driver import Around
from moe_impl.overlap.schedule import Op
from moe_impl.variant_run import VariantRun

RUNS = 4
MOST_DELAY_S = 300e-6
"""Longer than most stages of small batches, so that what should have waited finds what it waits for unfinished."""
MOST_DELAY_CYCLES = 500_000
"""As long at 1.7 GHz."""
DELAYED_SHARE = 0.5


def delaying(progress: Callable[[int], None], draw: random.Random) -> Callable[[int], None]:
    """``progress``, after which half of all ops are issued up to MOST_DELAY_S late."""

    def noted(position: int) -> None:
        progress(position)
        if draw.random() < DELAYED_SHARE:
            time.sleep(draw.random() * MOST_DELAY_S)

    return noted


def schedule_spread(run: VariantRun, final_TH: Tensor) -> ScheduleSpread:
    """Run again under random delays, and compare with the output of the undisturbed run.

    Args:
        run: built with a ``delaying`` progress.
        final_TH: the undisturbed run's output.
    """
    differences = [relative_difference(run(), final_TH) for _ in range(RUNS)]
    return ScheduleSpread(RUNS, max(differences))


def delaying_on_device(draw: random.Random) -> Around:
    """The same of the op's kernels: a kernel before them that keeps its stream busy up to MOST_DELAY_CYCLES."""

    @contextmanager
    def delayed(position: int, op: Op) -> Iterator[None]:
        if draw.random() < DELAYED_SHARE:
            torch.cuda._sleep(int(draw.random() * MOST_DELAY_CYCLES))
        yield

    return delayed


def captured_spread(run: VariantRun, final_TH: Tensor, draw: random.Random) -> ScheduleSpread:
    """As :func:`schedule_spread`; each run is a capture with other delays in it, and begins with memory full of NaN."""
    differences = []
    for _ in range(RUNS):
        call = run.under(delaying_on_device(draw))  # kept until the comparison has waited for its replay
        differences.append(relative_difference(call(), final_TH))
    return ScheduleSpread(RUNS, max(differences))


def relative_difference(found_TH: Tensor, expected_TH: Tensor) -> float:
    """Frobenius norm of the difference over the expected one's: 0.0 only for equal bits, inf if not finite."""
    if torch.equal(found_TH, expected_TH):
        return 0.0
    difference = float((found_TH.float() - expected_TH.float()).norm() / expected_TH.float().norm())
    return difference if difference == difference else float("inf")
