"""Many tests at once: which hold together, so that a long table does not show a few by chance. Pure floats.

Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995) 289.
"""

from collections.abc import Sequence

FALSE_DISCOVERY_RATE = 0.05


def discoveries(p_values: Sequence[float | None], rate: float = FALSE_DISCOVERY_RATE) -> list[bool]:
    """Which of these tests hold together: of those that do, ``rate`` are false on average.

    The largest k whose k-th smallest p-value is at most k / m * rate; all tests up to that p-value hold. None is no
    test: it counts for nothing and does not hold.
    """
    ordered = sorted(p for p in p_values if p is not None)
    bounds = (p for k, p in enumerate(ordered, start=1) if p <= k / len(ordered) * rate)
    limit = max(bounds, default=-1.0)
    return [p is not None and p <= limit for p in p_values]
