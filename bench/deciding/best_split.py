"""Which split factor is best where a sweep has several: the largest speed-up, and whether it is told from the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.deciding import join, stats
from bench.deciding.compare import NOISE_ALONE, Comparison, Verdict, decide
from bench.deciding.join import Series, series_of
from bench.results import Trial
from bench.settings import MeasureSettings

ANY_SPLIT = 0
"""Stands for the split factor in a group's variant; no variant has it."""


@dataclass(frozen=True)
class BestSplit:
    """The best of the T2o of one case that differ in their split factor alone."""

    group: Series
    """What they share, with ``split_factor`` = ANY_SPLIT."""
    best: Comparison
    """Picked on the samples that its interval is made of: read the interval as a little too kind."""
    next: Comparison
    told_apart: bool
    """Best against next, sample by sample in their common passes, is FASTER."""


def best_splits(
    cases: Mapping[str, Sequence[Trial]], comparisons: Sequence[Comparison], measure: MeasureSettings
) -> tuple[BestSplit, ...]:
    """One a case and group, by token count; none where fewer than two split factors were timed.

    Args:
        cases: case_id -> its Trials (bench.deciding.join.by_case).
        comparisons: of those Trials; a row whose verdict something other than noise forbids takes no part.
        measure: the margins.
    """
    groups: dict[tuple[str, Series], list[Comparison]] = {}
    for row in comparisons:
        if row.speedup is not None and NOISE_ALONE.issuperset(row.reasons):
            group = series_of(row.workload, row.link, replace(row.variant, split_factor=ANY_SPLIT))
            groups.setdefault((row.case_id, group), []).append(row)
    found = []
    for (case, group), rows in groups.items():
        if len(rows) > 1:
            best, second, *_ = sorted(rows, key=lambda row: -(row.speedup or 0.0))
            found.append(BestSplit(group, best, second, _told_apart(cases[case], best, second, measure)))
    return tuple(sorted(found, key=lambda split: split.best.workload.tokens))


def _told_apart(passes: Sequence[Trial], best: Comparison, other: Comparison, measure: MeasureSettings) -> bool:
    fast, slow = join.timed(passes, best.variant), join.timed(passes, other.variant)
    try:
        logs = [stats.paired_logs(slow[p].samples_s, fast[p].samples_s) for p in sorted(fast.keys() & slow.keys())]
    except ValueError:
        return False
    return bool(logs) and decide(stats.estimate(logs), measure)[0] is Verdict.FASTER
