"""Random host delays before ops: other interleavings of threads and streams than an undisturbed run has."""

import random
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.results import ScheduleSpread
from moe_impl.variant_run import VariantRun

RUNS = 4
MOST_DELAY_S = 300e-6
"""Longer than most stages of small batches, so that what should have waited finds what it waits for unfinished."""
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


def relative_difference(found_TH: Tensor, expected_TH: Tensor) -> float:
    """Frobenius norm of the difference over the expected one's: 0.0 only for equal bits, inf if not finite."""
    if torch.equal(found_TH, expected_TH):
        return 0.0
    difference = float((found_TH.float() - expected_TH.float()).norm() / expected_TH.float().norm())
    return difference if difference == difference else float("inf")
