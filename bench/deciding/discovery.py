"""Many tests at once: which hold together, so that a long table does not show a few by chance. Pure floats.

Benjamini and Hochberg, J. R. Stat. Soc. B 57 (1995) 289.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

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


class Judged(Protocol):
    """A row of a table of verdicts: a dataclass."""

    @property
    def verdict(self) -> str: ...


Row = TypeVar("Row", bound=Judged)


def surviving(
    rows: Sequence[Row],
    p_value: Callable[[Row], float | None],
    claims: Collection[str],
    undecided: Mapping[str, Any],
) -> list[Row]:
    """The same rows, those that claim a difference which so long a table shows by chance with ``undecided``'s fields.

    Args:
        p_value: of a row; None where it is no test.
        claims: verdicts that say that there is a difference.
        undecided: what such a row says instead.
    """
    held = discoveries([p_value(row) for row in rows])
    return [
        row if holds or row.verdict not in claims else replace(row, **undecided)  # type: ignore[type-var]
        for row, holds in zip(rows, held, strict=True)
    ]
