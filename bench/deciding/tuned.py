"""TBO on at its best setting against off at its best: settings are picked on some passes and judged on the others.

A best of many, judged on the samples that it was picked on, is too good: noise picks it, too. So even passes pick, odd
passes judge, and both sides pick from the same passes. The verdict of a row of fixed settings stays what it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean, median

from bench.deciding import join
from bench.deciding.compare import CLAIMS, Reason, Verdict, doubts_of_passes, judged, p_value
from bench.deciding.discovery import surviving
from bench.deciding.stats import Estimate
from bench.results import Trial
from bench.settings import MeasureSettings
from moe_impl.options import Link, Variant, Workload
from moe_impl.support import TBO_OFF

LEAST_JUDGING = 3
"""Passes: the 99 % interval of two is 45 standard deviations wide each way, and no effect is ever told."""
FEW_TO_JUDGE = f"fewer than {LEAST_JUDGING} passes are left to judge by, {2 * LEAST_JUDGING} in all would leave them"
"""Why UNDECIDED, beside what forbids any verdict."""


@dataclass(frozen=True)
class Tuned:
    """The picked on against the picked off of one case."""

    workload: Workload
    link: Link
    on: Variant
    off: Variant
    candidates_on: int
    candidates_off: int
    picked_in: tuple[int, ...]
    """Pass indices."""
    judged_in: tuple[int, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    """Why UNDECIDED; empty otherwise."""
    estimate: Estimate | None
    """Of the judging passes; None where there is none, or too few."""


def halves(passes: Iterable[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(picking, judging): every other pass, so that what drifts over a sweep is in both."""
    ordered = sorted(passes)
    return tuple(ordered[::2]), tuple(ordered[1::2])


def tuned(cases: Mapping[str, Sequence[Trial]], measure: MeasureSettings) -> tuple[Tuned, ...]:
    """One a case in which there is something to pick, by token count.

    A setting that was not timed in every pass takes no part. The rows are a table of their own as to false discoveries:
    rows of fixed settings, many a case, would drown them, and none of those depends on whether there are tuned ones.

    Args:
        cases: case_id -> its Trials (bench.deciding.join.by_case).
        measure: the margins.
    """
    found = [row for passes in cases.values() if (row := _of_case(passes, measure)) is not None]
    undecided = {"verdict": Verdict.UNDECIDED, "reasons": (Reason.FALSE_DISCOVERY,)}
    held = surviving(found, p_value, CLAIMS, undecided)
    return tuple(sorted(held, key=lambda row: row.workload.tokens))


def _of_case(passes: Sequence[Trial], measure: MeasureSettings) -> Tuned | None:
    picking, judging = halves(trial.pass_index for trial in passes)
    whole = [variant for variant in join.variants_of(passes) if len(join.timed(passes, variant)) == len(passes)]
    on = [variant for variant in whole if variant.role == "T2o" and not _turned_off(passes, variant)]
    off = [variant for variant in whole if variant.role == "T1"]
    if not on or not off or len(on) + len(off) == 2:
        return None
    best_on, best_off = (min(side, key=lambda one: _log_time(passes, one, picking)) for side in (on, off))
    doubts = [Reason.CPU] if any(trial.machine.device == "cpu" for trial in passes) else []
    doubts += doubts_of_passes(passes, len(passes))
    verdict, reasons, estimate = _judged(passes, best_off, best_on, judging, doubts, measure)
    return Tuned(
        passes[0].workload,
        passes[0].link,
        best_on,
        best_off,
        len(on),
        len(off),
        picking,
        judging,
        verdict,
        reasons,
        estimate,
    )


def _judged(
    passes: Sequence[Trial],
    off: Variant,
    on: Variant,
    judging: Sequence[int],
    doubts: Sequence[Reason],
    measure: MeasureSettings,
) -> tuple[Verdict, tuple[str, ...], Estimate | None]:
    if len(judging) < LEAST_JUDGING:
        return Verdict.UNDECIDED, (*doubts, FEW_TO_JUDGE), None
    return judged(join.timed(passes, off), join.timed(passes, on), judging, doubts, measure)


def _log_time(passes: Sequence[Trial], variant: Variant, indices: Sequence[int]) -> float:
    """Mean over these passes of the log of the median time."""
    timed = join.timed(passes, variant)
    return fmean(log(median(timed[index].samples_s)) for index in indices)


def _turned_off(passes: Sequence[Trial], variant: Variant) -> bool:
    return any(TBO_OFF in m.limits for m in join.measured(passes, variant).values())
