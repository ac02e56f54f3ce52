"""Decide: each overlapped variant (T2o) against its own unsplit run (T1), with a verdict and the reasons for none."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from statistics import median
from typing import Protocol

from bench.deciding import join
from bench.deciding.discovery import surviving
from bench.deciding.join import Passes, Runs
from bench.deciding.sides import Sides, overlapped, speedup
from bench.deciding.stats import Estimate
from bench.identity import case_id
from bench.lazy import lazy, tell
from bench.results import FAILURES, Measurement, Trial
from bench.settings import MeasureSettings
from moe_impl.options import Link, Variant, Workload
from moe_impl.support import CPU_ONLY, TBO_OFF

LABELS, LIMITS, FLAGS = map(attrgetter, ("labels", "limits", "flags"))
"""Of a Measurement."""


class Verdict(StrEnum):
    """Of TBO on against off."""

    FASTER = "FASTER"
    SLOWER = "SLOWER"
    SAME = "SAME"
    UNDECIDED = "UNDECIDED"


CLAIMS = frozenset({Verdict.FASTER, Verdict.SLOWER})
"""What says that there is a difference, and may say so by chance."""


class Reason(StrEnum):
    """Why a verdict is UNDECIDED. The list is closed."""

    CPU = CPU_ONLY
    TURNED_OFF = TBO_OFF
    BASELINE_MISSING = "T1 was not run"
    BASELINE_FAILED = "T1 failed or was skipped"
    PASS_FAILED = "failed in at least one pass"
    UNPAIRED = "T1 and T2o do not hold the same mirrored blocks"
    MACHINES_DIFFER = "passes ran on different machines or timers"
    ONE_PASS = "one pass only"
    FEW_COMMON_PASSES = "fewer than two passes timed both T1 and T2o"
    STRADDLES = "the interval lies on both sides of 1"
    TOUCHES_MARGIN = "the interval touches the margin"
    FALSE_DISCOVERY = "does not survive the false discovery rate of the whole table"


NOISE_ALONE = frozenset({Reason.STRADDLES, Reason.TOUCHES_MARGIN, Reason.FALSE_DISCOVERY})
"""Reasons for no verdict that leave the speed-up a measurement: all else (a failed pass) forbids using it."""


@dataclass(frozen=True)
class Comparison:
    """One T2o against its own T1."""

    workload: Workload
    link: Link
    variant: Variant
    verdict: Verdict
    reasons: tuple[Reason, ...]
    """Why UNDECIDED; empty otherwise."""
    estimate: Estimate | None
    """None where no pass timed both."""
    baseline_s: float | None
    """Median of T1's samples over the common passes."""
    variant_s: float | None
    """Median of T2o's samples over the common passes."""
    labels: tuple[str, ...]
    """What every number of this row must say of itself."""
    limits: tuple[str, ...]
    """Why this row may not be used for advice; empty if it may."""
    flags: tuple[str, ...]
    """Doubts about what was measured, of T1, T2s and T2o."""
    timers: tuple[str, ...]

    @property
    def baseline(self) -> Variant:
        """T1."""
        return join.unsplit(self.variant)

    @lazy
    def case_id(self) -> str:
        return case_id(self.workload, self.link)

    @property
    def ran_tbo(self) -> bool:
        """False where the variant turned itself off: off was compared with off."""
        return TBO_OFF not in self.limits

    @property
    def speedup(self) -> float | None:
        """T1 / T2o: above 1 TBO is faster."""
        return None if self.estimate is None else self.estimate.speedup

    @property
    def low(self) -> float | None:
        return None if self.estimate is None else self.estimate.low

    @property
    def high(self) -> float | None:
        return None if self.estimate is None else self.estimate.high

    @property
    def confidence(self) -> float | None:
        return None if self.estimate is None else self.estimate.confidence

    @property
    def min_detectable(self) -> float | None:
        """As a fraction of the speed-up, found in 80 % of all runs (bench.deciding.stats)."""
        return None if self.estimate is None else self.estimate.min_detectable

    @property
    def passes(self) -> int:
        """Passes that timed both sides."""
        return 0 if self.estimate is None else self.estimate.passes


def compare_off_on(trials: Iterable[Trial], measure: MeasureSettings) -> list[Comparison]:
    """Every T2o that was timed at least once, against its own T1 of the same case and pass; verdicts hold together."""
    return compare_cases(join.by_case(trials), measure)


def compare_cases(cases: Mapping[str, Sequence[Trial]], measure: MeasureSettings) -> list[Comparison]:
    """The same of case_id -> its Trials (bench.deciding.join.by_case)."""
    return true_together(
        [
            off_on(passes, variant, sides, measure)
            for passes in map(join.indexed, cases.values())
            for variant, sides in overlapped(passes)
            if sides.on.timed
        ]
    )


def true_together(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same rows, those UNDECIDED whose difference so long a table shows by chance.

    The tests of the table are all that had an interval and nothing against them, whatever they said.
    """
    undecided = {"verdict": Verdict.UNDECIDED, "reasons": (Reason.FALSE_DISCOVERY,)}
    return surviving(comparisons, p_value, CLAIMS, undecided)


class Tested(Protocol):
    """A row of a table of verdicts."""

    @property
    def estimate(self) -> Estimate | None: ...
    @property
    def reasons(self) -> tuple[str, ...]: ...


def p_value(row: Tested) -> float | None:
    """Of a row that nothing but noise keeps from a verdict; None: it is no test."""
    return row.estimate.p_value if row.estimate is not None and NOISE_ALONE.issuperset(row.reasons) else None


class Interval(Protocol):
    """Of a ratio, above 1 for the better; None where there were too few passes for one."""

    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def decide(estimate: Interval, measure: MeasureSettings) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict of an interval: ``decide_beyond`` goes first, then ``same_within``."""
    low, high = estimate.low, estimate.high
    if low is None or high is None:
        return Verdict.UNDECIDED, (Reason.ONE_PASS,)
    if low > 1 + measure.decide_beyond:
        return Verdict.FASTER, ()
    if high < 1 - measure.decide_beyond:
        return Verdict.SLOWER, ()
    if low >= 1 - measure.same_within and high <= 1 + measure.same_within:
        return Verdict.SAME, ()
    return Verdict.UNDECIDED, (Reason.STRADDLES if low < 1 < high else Reason.TOUCHES_MARGIN,)


def judged(
    off: Mapping[int, Measurement],
    on: Mapping[int, Measurement],
    common: Sequence[int],
    doubts: Sequence[Reason],
    measure: MeasureSettings,
) -> tuple[Verdict, tuple[Reason, ...], Estimate | None]:
    """(verdict, reasons for none, speed-up) of the passes that timed both sides.

    Args:
        off, on: pass_index -> what was timed.
        common: passes of both.
        doubts: what forbids a verdict whatever the interval says.
    """
    return _judged(lambda: speedup(off, on, common), doubts, measure)


def _judged(
    find: Callable[[], Estimate | None], doubts: Sequence[Reason], measure: MeasureSettings
) -> tuple[Verdict, tuple[Reason, ...], Estimate | None]:
    reasons = tuple(doubts)
    try:
        estimate = find()
    except ValueError:
        return Verdict.UNDECIDED, (*reasons, Reason.UNPAIRED), None
    if estimate is None or reasons:
        return Verdict.UNDECIDED, reasons, estimate
    return *decide(estimate, measure), estimate


def off_on(passes: Passes, variant: Variant, sides: Sides, measure: MeasureSettings) -> Comparison:
    """One T2o against its own T1 of the same case and pass, its verdict for itself.

    Args:
        passes: of the case.
        variant, sides: one that is ``overlapped`` (bench.deciding.sides).
        measure: the margins.
    """
    off, on = sides.off, sides.on
    doubts = _doubts(passes, off, on, len(sides.common))
    verdict, reasons, estimate = _judged(lambda: sides.estimate, doubts, measure)
    of_off, of_serial, of_on = (list(side.timed.values()) for side in (off, sides.serial, on))
    row = Comparison(
        workload=passes[0].workload,
        link=passes[0].link,
        variant=variant,
        verdict=verdict,
        reasons=reasons,
        estimate=estimate,
        baseline_s=_median_s(off, sides.common),
        variant_s=_median_s(on, sides.common),
        labels=join.distinct(map(LABELS, of_on)),
        limits=join.distinct(map(LIMITS, of_off + of_on)),
        flags=join.distinct(map(FLAGS, of_off + of_serial + of_on)),
        timers=tuple(dict.fromkeys(trial.timer for trial in passes)),
    )
    tell(row, case_id=passes[0].case_id)
    return row


def _doubts(passes: Sequence[Trial], off: Runs, on: Runs, num_common: int) -> list[Reason]:
    """What forbids a verdict whatever the interval says."""
    doubts = []
    if any(trial.machine.device == "cpu" for trial in passes):
        doubts.append(Reason.CPU)
    if any(TBO_OFF in m.limits for m in on.timed.values()):
        doubts.append(Reason.TURNED_OFF)
    if not off.measured:
        doubts.append(Reason.BASELINE_MISSING)
    elif not off.timed:
        doubts.append(Reason.BASELINE_FAILED)
    # A variant that crashed or gave a wrong answer once must not win on the passes in which it did not.
    elif any(m.status in FAILURES for m in [*off.measured.values(), *on.measured.values()]):
        doubts.append(Reason.PASS_FAILED)
    return doubts + doubts_of_passes(passes, num_common)


def doubts_of_passes(passes: Sequence[Trial], num_common: int) -> list[Reason]:
    """What forbids a verdict over these passes, of which so many timed both sides."""
    doubts = []
    if len(join.indexed(passes).settings) > 1:
        doubts.append(Reason.MACHINES_DIFFER)
    if len(passes) == 1:
        doubts.append(Reason.ONE_PASS)
    elif num_common < 2:
        doubts.append(Reason.FEW_COMMON_PASSES)
    return doubts


def _median_s(runs: Runs, common: Sequence[int]) -> float | None:
    if len(common) == len(runs.timed):
        return runs.median_s
    return median(join.samples_s(runs.timed[p] for p in common)) if common else None
