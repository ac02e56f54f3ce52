"""From how many tokens on TBO pays: one answer a series, from the verdicts; the crossing from the speed-ups."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.deciding.compare import Comparison, Verdict
from bench.deciding.join import Series, series_of


class Kind(StrEnum):
    """What a series of verdicts says."""

    CROSSING = "crossing"
    """Not faster up to one token count, faster at every larger one measured."""
    EVERYWHERE = "faster everywhere measured"
    NOWHERE = "faster nowhere measured"
    NOT_MONOTONE = "not monotone"
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
    smallest_faster: int | None = None
    """The smallest T from which all larger ones measured are FASTER."""
    crossing: float | None = None
    """Where the speed-up passes 1, interpolated; None: below the smallest T measured."""
    crossing_low: float | None = None
    """The same for the upper ends of the speed-ups' intervals."""
    crossing_high: float | None = None
    """The same for their lower ends."""
    why: tuple[str, ...] = ()

    def tokens_with(self, verdict: Verdict) -> tuple[int, ...]:
        """Token counts that got this verdict."""
        return tuple(tokens for tokens, found in self.verdicts if found is verdict)


def break_evens(comparisons: Iterable[Comparison]) -> list[BreakEven]:
    """One answer a series, in order of first appearance."""
    series: dict[Series, list[Comparison]] = {}
    for comparison in comparisons:
        key = series_of(comparison.workload, comparison.link, comparison.variant)
        series.setdefault(key, []).append(comparison)
    return [_answer(key, sorted(rows, key=lambda row: row.workload.tokens)) for key, rows in series.items()]


def zero_crossing(tokens: Sequence[int], log_speedups: Sequence[float]) -> float | None:
    """The last token count at which the speed-up rises through 1, linear in log T; None if it never does."""
    pairs = list(itertools.pairwise(zip(tokens, log_speedups, strict=True)))
    for (t0, y0), (t1, y1) in reversed(pairs):
        if y0 <= 0 < y1:
            return math.exp(math.log(t0) + (math.log(t1) - math.log(t0)) * -y0 / (y1 - y0))
    return None


def _answer(series: Series, rows: Sequence[Comparison]) -> BreakEven:
    verdicts = tuple((row.workload.tokens, row.verdict) for row in rows)
    limits = tuple(dict.fromkeys(limit for row in rows for limit in row.limits))
    if limits:
        return BreakEven(series, Kind.NO_CLAIM, verdicts, why=limits)
    faster = [row.verdict is Verdict.FASTER for row in rows]
    if all(faster):
        return BreakEven(series, Kind.EVERYWHERE, verdicts, smallest_faster=verdicts[0][0])
    largest_not_faster = max(tokens for tokens, verdict in verdicts if verdict is not Verdict.FASTER)
    if not any(faster):
        return BreakEven(series, Kind.NOWHERE, verdicts, largest_not_faster=largest_not_faster)
    first = faster.index(True)
    if not all(faster[first:]):
        return BreakEven(series, Kind.NOT_MONOTONE, verdicts)
    known = [row for row in rows if row.speedup is not None and row.low is not None and row.high is not None]
    tokens = [row.workload.tokens for row in known]

    def crossing(speedups: Iterable[float | None]) -> float | None:
        return zero_crossing(tokens, [math.log(value) for value in speedups if value is not None])

    return BreakEven(
        series,
        Kind.CROSSING,
        verdicts,
        largest_not_faster=largest_not_faster,
        smallest_faster=verdicts[first][0],
        crossing=crossing(row.speedup for row in known),
        crossing_low=crossing(row.high for row in known),
        crossing_high=crossing(row.low for row in known),
    )
