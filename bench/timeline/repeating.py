"""Tell iterations apart in a trace that names none: by what is launched again and again in one order."""

from dataclasses import replace
from typing import Literal

import numpy as np

from bench.timeline.attribute import Attributed
from bench.timeline.model import UNKNOWN, Column

Told = Literal["named", "repeating", "untold"]
"""How iterations are known: by ranges, by the repeating order of launches, or not at all."""


def with_iterations(found: Attributed) -> tuple[Attributed, Told]:
    """The same work, with iteration numbers where its launches repeat exactly.

    Needs layers: without them what repeats may be a layer.
    """
    if (found.iteration != UNKNOWN).any():
        return found, "named"
    launch = found.profile.work.launch_ns
    if (launch == UNKNOWN).any() or (found.layer == UNKNOWN).all():
        return found, "untold"
    order = np.argsort(launch, kind="stable")
    length = _period(_kinds(found)[order])
    if length is None:
        return found, "untold"
    iteration = np.empty(len(order), dtype=np.int64)
    iteration[order] = np.arange(len(order)) // length
    return replace(found, iteration=iteration), "repeating"


def _kinds(found: Attributed) -> Column:
    """One number for each distinct kind of work."""
    work = found.profile.work
    rows = np.stack([found.stage, found.layer, found.ubatch, work.stream, work.name], axis=1)
    _, number = np.unique(rows, axis=0, return_inverse=True)
    return number.reshape(-1).astype(np.int64)


def _period(kinds: Column) -> int | None:
    """The shortest part whose repetition is the whole; None where nothing repeats."""
    total = len(kinds)
    for length in range(1, total // 2 + 1):
        if total % length == 0 and np.array_equal(kinds[length:], kinds[:-length]):
            return length
    return None
