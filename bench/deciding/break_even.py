"""From how many tokens on TBO pays: one answer a series, from the verdicts; the crossing from the speed-ups."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.deciding.compare import NOISE_ALONE, Comparison, Verdict
from bench.deciding.join import Series, distinct, series_of

FAR_APART = 2
"""Ratio of token counts beyond which nobody knows how the speed-up runs between them."""


class Kind(StrEnum):
    """What a series of verdicts says."""

    CROSSING = "crossing"
    """Faster at every token count measured from one on, not at all smaller ones."""
    EVERYWHERE = "faster everywhere measured"
    NOWHERE = "faster nowhere measured"
    NOT_MONOTONE = "not monotone"
    UNDECIDED = "undecided"
    """Rows without a verdict, on which the answer hangs."""
    NO_CLAIM = "no claim"
    """Some row has limits; ``why`` tells which."""


@dataclass(frozen=True)
class BreakEven:
    """The answer of one series, in tokens of this rank."""

    series: Series
    kind: Kind
    verdicts: tuple[tuple[int, Verdict], ...]
    """(tokens, verdict), by tokens."""
    largest_not_faster: int | None = None
    """The largest T with a verdict other than FASTER: an UNDECIDED row bounds nothing; None if there is none."""
    smallest_faster: int | None = None
    """The smallest T from which all larger ones measured are FASTER."""
    crossing: float | None = None
    """Where the speed-up passes 1, interpolated; None: not of kind CROSSING, or it never rises through 1."""
    crossing_between: tuple[int, int] | None = None
    """The measured T it was interpolated between: how well it is known, far beyond its noise."""
    crossing_low: float | None = None
    """The same for the upper ends of the speed-ups' intervals: noise alone, not the error of interpolating."""
    crossing_high: float | None = None
    """The same for their lower ends."""
    why: tuple[str, ...] = ()

    def tokens_with(self, verdict: Verdict) -> tuple[int, ...]:
        """Token counts that got this verdict."""
        return tuple(tokens for tokens, found in self.verdicts if found is verdict)

    @property
    def close_crossing(self) -> float | None:
        """The crossing where it was interpolated over a gap short enough to quote it; None elsewhere."""
        if self.crossing is None or self.crossing_between is None:
            return None
        low, high = self.crossing_between
        return self.crossing if high <= FAR_APART * low else None

    @property
    def bracket(self) -> tuple[int, int] | None:
        """The two decided token counts that the break-even lies between; None where it has none, or no lower one."""
        if self.kind is not Kind.CROSSING or self.largest_not_faster is None or self.smallest_faster is None:
            return None
        return self.largest_not_faster, self.smallest_faster


def break_evens(comparisons: Iterable[Comparison]) -> list[BreakEven]:
    """One answer a series, in order of first appearance; rows that did not run TBO take no part in it."""
    series: dict[Series, list[Comparison]] = {}
    for comparison in comparisons:
        key = series_of(comparison.workload, comparison.link, comparison.variant)
        series.setdefault(key, []).append(comparison)
    return [_answer(key, sorted(_with_tbo(rows), key=lambda row: row.workload.tokens)) for key, rows in series.items()]


def _with_tbo(rows: Sequence[Comparison]) -> Sequence[Comparison]:
    """Those that ran TBO; all, which then say why there is no claim, if none did."""
    return [row for row in rows if row.ran_tbo] or rows


@dataclass(frozen=True)
class ZeroCrossing:
    """Where a measured curve rises through 0."""

    tokens: float
    between: tuple[int, int]


def zero_crossing(tokens: Sequence[int], log_speedups: Sequence[float]) -> ZeroCrossing | None:
    """The last token count at which the speed-up rises through 1, linear in log T; None if it never does."""
    pairs = list(itertools.pairwise(zip(tokens, log_speedups, strict=True)))
    for (t0, y0), (t1, y1) in reversed(pairs):
        if y0 <= 0 < y1:
            at = math.exp(math.log(t0) + (math.log(t1) - math.log(t0)) * -y0 / (y1 - y0))
            return ZeroCrossing(at, (t0, t1))
    return None


def _interpolable(row: Comparison) -> bool:
    return row.low is not None and NOISE_ALONE.issuperset(row.reasons)


def _answer(series: Series, rows: Sequence[Comparison]) -> BreakEven:
    verdicts = tuple((row.workload.tokens, row.verdict) for row in rows)
    limits = distinct(row.limits for row in rows)
    if limits:
        return BreakEven(series, Kind.NO_CLAIM, verdicts, why=limits)
    faster = [row.verdict is Verdict.FASTER for row in rows]
    if all(faster):
        return BreakEven(series, Kind.EVERYWHERE, verdicts, smallest_faster=verdicts[0][0])
    undecided = [row.verdict is Verdict.UNDECIDED for row in rows]
    decided_against = [t for t, verdict in verdicts if verdict not in (Verdict.FASTER, Verdict.UNDECIDED)]
    largest_not_faster = max(decided_against, default=None)
    if not any(faster):
        kind = Kind.UNDECIDED if any(undecided) else Kind.NOWHERE
        return BreakEven(series, kind, verdicts, largest_not_faster=largest_not_faster)
    first = faster.index(True)
    if not all(faster[first:]):
        contradicted = any(not (yes or open_) for yes, open_ in zip(faster[first:], undecided[first:], strict=True))
        return BreakEven(series, Kind.NOT_MONOTONE if contradicted else Kind.UNDECIDED, verdicts)
    known = [row for row in rows if _interpolable(row)]
    tokens = [row.workload.tokens for row in known]

    def crossing(speedups: Iterable[float | None]) -> ZeroCrossing | None:
        return zero_crossing(tokens, [math.log(value) for value in speedups if value is not None])

    found, low, high = (
        crossing(speedups)
        for speedups in ((row.speedup for row in known), (row.high for row in known), (row.low for row in known))
    )
    return BreakEven(
        series,
        Kind.CROSSING,
        verdicts,
        largest_not_faster=largest_not_faster,
        smallest_faster=verdicts[first][0],
        crossing=None if found is None else found.tokens,
        crossing_between=None if found is None else found.between,
        crossing_low=None if low is None else low.tokens,
        crossing_high=None if high is None else high.tokens,
    )
