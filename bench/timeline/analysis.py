"""All that ``bench analyze`` says of a profile: its iterations, what they have in common, and its doubts. Data only."""

from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.timeline.attribute import Attributed
from bench.timeline.diagnose import Cause, diagnose
from bench.timeline.metrics import IterationMetrics, iterations
from bench.timeline.model import UNKNOWN

UNKNOWN_SHARE_DOUBTED = 0.05
"""Of busy time: with more of no known lane, overlap is a guess."""


@dataclass(frozen=True)
class Analysis:
    """One run of a profile."""

    run: str
    """Its name; empty where the profile names none."""
    source: str
    iterations: tuple[IterationMetrics, ...]
    work: int
    streams: tuple[int, ...]
    unattributed: int
    """Work in no known stage."""
    causes: tuple[Cause, ...]
    """Why communication is not hidden, the most telling first."""
    doubts: tuple[str, ...]

    def share(self, name: str) -> float:
        """Median over iterations of a metric over the span."""
        return median(getattr(m, name) / m.span_ns if m.span_ns else 0.0 for m in self.iterations)

    @property
    def span_ns(self) -> float:
        return median(m.span_ns for m in self.iterations)

    def stage_share(self, stage: str) -> float:
        """Median busy time of a stage over the median span; 0 without such a stage."""
        return self.stages_ns.get(stage, 0.0) / self.span_ns if self.span_ns else 0.0

    @property
    def overlap(self) -> float | None:
        """Median share of communication that was hidden; None where no iteration communicates."""
        known = [m.overlap for m in self.iterations if m.overlap is not None]
        return median(known) if known else None

    @property
    def stages_ns(self) -> dict[str, float]:
        """Stage -> median over iterations of its busy time; 0 in an iteration without it."""
        names = dict.fromkeys(name for m in self.iterations for name in m.stages_ns)
        return {name: median(m.stages_ns.get(name, 0) for m in self.iterations) for name in names}


def runs_of(found: Attributed) -> list[tuple[str, Attributed]]:
    """Each run that the profile names, or all its work without a name."""
    runs = [number for number in range(len(found.run_names.texts)) if (found.run == number).any()]
    if not runs:
        return [("", found)]
    return [(found.run_names.text(number), found.of_run(number)) for number in runs]


def measure(name: str, found: Attributed) -> Analysis:
    """One run's metrics, causes and doubts."""
    measured, work = iterations(found), found.profile.work
    doubts = list(found.profile.doubts)
    if measured[0].iteration == UNKNOWN:
        doubts.append("no range names an iteration: the whole trace counts as one")
    unknown = sum(m.unknown_ns for m in measured) / max(1, sum(m.busy_ns for m in measured))
    if unknown > UNKNOWN_SHARE_DOUBTED:
        doubts.append(f"{unknown:.0%} of busy time is of no known lane: name its ranges, streams or kernels with --map")
    return Analysis(
        name,
        found.profile.source,
        tuple(measured),
        len(work),
        tuple(np.unique(work.stream).tolist()),
        int((found.stage == UNKNOWN).sum()),
        tuple(diagnose(found, measured)),
        tuple(doubts),
    )
