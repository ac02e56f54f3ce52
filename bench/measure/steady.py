"""Whether a series of times still drifts. Pure floats, torch-free.

The last quarter of the series is compared with the quarter before it, so that a slow drift, which neighbouring calls
hide, is seen once the series is long, and a cold beginning is forgotten.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LEAST_WINDOW = 5
"""Calls: a quarter of a short series holds too few for a median."""
WITHIN = 0.01
"""What moves by less than this fraction from one window to the next is steady."""
NOISE_TIMES = 2.0
"""What moves by less than so many standard errors of the two medians' difference may be."""
ENOUGH_WINDOW = 10
"""Calls in a window whose noise is the series' own: behind that of fewer a drift hides too easily."""
SD_PER_MAD = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""
MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, of a normal distribution."""


@dataclass(frozen=True)
class Drift:
    """Of the last window against the one before, as fractions of the latter."""

    change: float
    noise: float
    """Standard error of ``change``, from the scatter inside the windows: a drift through them adds little to it."""
    window: int
    """Calls in each."""

    @property
    def seen(self) -> bool:
        """Whether there is a drift, beyond what is allowed and beyond noise."""
        return abs(self.change) > max(WITHIN, NOISE_TIMES * self.noise)

    @property
    def steady(self) -> bool:
        """Whether more calls would not tell more: what is not seen may be there unseen in a few noisy calls."""
        return not self.seen and (abs(self.change) <= WITHIN or self.window >= ENOUGH_WINDOW)


def drift(series: Sequence[float]) -> Drift | None:
    """How the end of the series moves; None where it holds less than two windows."""
    window = max(LEAST_WINDOW, len(series) // 4)
    if len(series) < 2 * window:
        return None
    windows = series[-2 * window : -window], series[-window:]
    before, after = map(median, windows)
    if before <= 0:  # calls below the clock's resolution
        return Drift(0.0, 0.0, window)
    scatter = sorted(abs(value - median(values)) for values in windows for value in values)
    sd = SD_PER_MAD * median(scatter[len(windows) :])  # less each window's median itself, which lies 0 from it
    return Drift(after / before - 1, MEDIAN_ERROR * sd * math.sqrt(2 / window) / before, window)
