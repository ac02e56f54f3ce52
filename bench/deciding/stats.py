"""Speed-ups from paired samples: log ratios, Student's t over passes. Pure floats; knows no case, variant or file.

Why pairs, and why only pass means enter the interval: clocks wander within a pass and processes differ between passes,
so samples are no independent draws. A mirrored block (A B C C B A) cancels linear drift between its variants, and a
pass is a fresh process, hence the unit that is repeated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import add, truediv
from statistics import fmean, median

from scipy.special import stdtr, stdtrit

from bench.lazy import lazy

BLOCK_SAMPLES = 2
"""A mirrored block holds two samples of every variant."""
FEW_PASSES = 5
"""Below this many passes the interval is a 99 % one: the spread of so few means is itself badly known."""
CONFIDENCE_FEW, CONFIDENCE = 0.99, 0.95
POWER = 0.8
"""How often an effect of the minimum detectable size would be told from none."""


def confidence(passes: int) -> float:
    """Of an interval over so many pass means, as a fraction."""
    return CONFIDENCE_FEW if passes < FEW_PASSES else CONFIDENCE


@lru_cache(maxsize=4096)
def quantile(freedom: float, probability: float) -> float:
    """Student's t."""
    return float(stdtrit(freedom, probability))


@dataclass(frozen=True)
class Estimate:
    """A speed-up, baseline time over candidate time: above 1 the candidate is faster."""

    pass_logs: tuple[float, ...]
    """Median log ratio of each pass: a mean would follow the few samples in which the host was elsewhere."""
    within_sd: float | None
    """Standard deviation of the paired logs within a pass, pooled over passes; None with one pair a pass,
    and where nobody asks for it (bench.deciding.at_once)."""

    @property
    def passes(self) -> int:
        return len(self.pass_logs)

    @property
    def confidence(self) -> float:
        """Of the interval ``low``..``high``, as a fraction."""
        return confidence(self.passes)

    @lazy
    def speedup(self) -> float:
        """Geometric mean over passes."""
        return math.exp(fmean(self.pass_logs))

    @lazy
    def between_sd(self) -> float | None:
        """Standard deviation of the pass means; None with one pass."""
        return stdev(self.pass_logs) if self.passes > 1 else None

    @property
    def standard_error(self) -> float | None:
        """Of the mean log; None with one pass."""
        return None if self.between_sd is None else self.between_sd / math.sqrt(self.passes)

    def _t(self, probability: float) -> float:
        """Student's t quantile with passes - 1 degrees of freedom."""
        return quantile(self.passes - 1, probability)

    @lazy
    def half_width(self) -> float | None:
        """Of the interval of the mean log, Student's t with passes - 1 degrees of freedom; None with one pass."""
        return None if self.standard_error is None else self._t(0.5 + self.confidence / 2) * self.standard_error

    @property
    def low(self) -> float | None:
        """Lower end of the speed-up's interval; None with one pass."""
        return None if self.half_width is None else self.speedup * math.exp(-self.half_width)

    @property
    def high(self) -> float | None:
        """Upper end of the speed-up's interval; None with one pass."""
        return None if self.half_width is None else self.speedup * math.exp(self.half_width)

    @lazy
    def p_value(self) -> float | None:
        """Two-sided, of a speed-up of 1; None with one pass."""
        error = self.standard_error
        if error is None:
            return None
        mean = fmean(self.pass_logs)
        if error == 0:
            return 1.0 if mean == 0 else 0.0
        return 2 * float(stdtr(self.passes - 1, -abs(mean) / error))

    @property
    def min_detectable(self) -> float | None:
        """Smallest true effect that so many passes tell from none in POWER of all runs, as a fraction.

        The interval's half-width alone would be missed by every second run: the mean falls short of it that often.
        """
        if self.standard_error is None:
            return None
        return math.expm1((self._t(0.5 + self.confidence / 2) + self._t(POWER)) * self.standard_error)


def stdev(values: Sequence[float]) -> float:
    """Of at least two values. As ``statistics.stdev``, which computes in fractions and takes 20 times as long."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum([(value - mean) ** 2 for value in values]) / (len(values) - 1))


def paired_logs(baseline_s: Sequence[float], candidate_s: Sequence[float]) -> list[float]:
    """log(baseline / candidate) of each mirrored block's mean, for the samples of one pass in measuring order.

    Raises:
        ValueError: the two sides do not hold the same whole number of blocks, at least one.
    """
    if len(baseline_s) != len(candidate_s) or not baseline_s or len(baseline_s) % BLOCK_SAMPLES:
        raise ValueError(
            f"{len(baseline_s)} and {len(candidate_s)} samples: not the same whole number of blocks of {BLOCK_SAMPLES}"
        )
    off, on = (map(add, side[::BLOCK_SAMPLES], side[1::BLOCK_SAMPLES]) for side in (baseline_s, candidate_s))
    return list(map(math.log, map(truediv, off, on)))


def estimate(passes: Sequence[Sequence[float]]) -> Estimate:
    """The speed-up over passes, each given by its paired logs.

    Raises:
        ValueError: no pass.
    """
    if not passes:
        raise ValueError("a speed-up needs at least one pass")
    spread = [(len(logs) - 1, stdev(logs) ** 2) for logs in passes if len(logs) > 1]
    freedom = sum(weight for weight, _ in spread)
    within = math.sqrt(sum(weight * variance for weight, variance in spread) / freedom) if freedom else None
    return Estimate(tuple(median(logs) for logs in passes), within)
