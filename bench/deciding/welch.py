"""Two independent samples of pass means: Welch's interval of their difference.

Pure floats; knows no run, case or variant. Welch, for the passes of two runs are no pairs and need not spread alike:
B. L. Welch, Biometrika 34 (1947) 28.
"""

import math
from dataclasses import dataclass
from statistics import fmean

from scipy.special import stdtr, stdtrit

from bench.deciding import stats
from bench.deciding.stats import stdev
from bench.lazy import lazy


@dataclass(frozen=True)
class Difference:
    """Mean of ``new`` minus mean of ``base``, read as a ratio: both are logarithms, one a pass, at least one each."""

    base: tuple[float, ...]
    new: tuple[float, ...]

    @property
    def passes(self) -> tuple[int, int]:
        """Of ``base`` and of ``new``."""
        return len(self.base), len(self.new)

    @property
    def confidence(self) -> float:
        """Of the interval ``low``..``high``, as a fraction; the side with fewer passes rules."""
        return stats.confidence(min(self.passes))

    @lazy
    def log(self) -> float:
        return fmean(self.new) - fmean(self.base)

    @property
    def ratio(self) -> float:
        """new / base, of geometric means over passes."""
        return math.exp(self.log)

    @lazy
    def _deviations(self) -> tuple[float, float] | None:
        """Standard deviation of each side; None where a side has one pass."""
        return None if min(self.passes) < 2 else (stdev(self.base), stdev(self.new))

    @lazy
    def _variances(self) -> tuple[float, float] | None:
        """Of each side's mean; None where a side has one pass."""
        if self._deviations is None:
            return None
        base, new = self._deviations
        return base**2 / len(self.base), new**2 / len(self.new)

    @lazy
    def standard_error(self) -> float | None:
        """Of ``log``; None where a side has one pass."""
        found = self._variances
        return None if found is None else math.sqrt(sum(found))

    @lazy
    def freedom(self) -> float:
        """Degrees of freedom after Welch and Satterthwaite, at least those of the smaller side."""
        found = self._variances
        if found is None or not any(found):
            return sum(self.passes) - 2
        return sum(found) ** 2 / sum(v**2 / (n - 1) for v, n in zip(found, self.passes, strict=True))

    @lazy
    def half_width(self) -> float | None:
        """Of the interval of ``log``; None where a side has one pass."""
        error = self.standard_error
        return None if error is None else float(stdtrit(self.freedom, 0.5 + self.confidence / 2)) * error

    @property
    def low(self) -> float | None:
        """Lower end of the ratio's interval."""
        return None if self.half_width is None else math.exp(self.log - self.half_width)

    @property
    def high(self) -> float | None:
        """Upper end of the ratio's interval."""
        return None if self.half_width is None else math.exp(self.log + self.half_width)

    @lazy
    def p_value(self) -> float | None:
        """Two-sided, of no difference; None where a side has one pass."""
        error = self.standard_error
        if error is None:
            return None
        if error == 0:
            return 1.0 if self.log == 0 else 0.0
        return 2 * float(stdtr(self.freedom, -abs(self.log) / error))

    @property
    def between_sd(self) -> float | None:
        """Standard deviation between passes, pooled over both sides; None where a side has one pass."""
        if self._deviations is None:
            return None
        squares = sum((n - 1) * one**2 for n, one in zip(self.passes, self._deviations, strict=True))
        return math.sqrt(squares / (sum(self.passes) - 2))

    @property
    def min_detectable(self) -> float | None:
        """Smallest true change told from none in ``stats.POWER`` of all such comparisons, as a fraction."""
        error = self.standard_error
        if error is None:
            return None
        quantiles = (float(stdtrit(self.freedom, at)) for at in (0.5 + self.confidence / 2, stats.POWER))
        return math.expm1(sum(quantiles) * error)
