"""Up to how many tokens a series fits into memory, TBO off and on: a split needs smaller buffers, which is a result."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.deciding import join
from bench.deciding.join import Series, series_of
from bench.results import Measurement, Status, Trial
from moe_impl.options import Variant
from moe_impl.support import MEMORY_NEED


@dataclass(frozen=True)
class Side:
    """T1 or T2o over token counts, rising."""

    fits: tuple[int, ...]
    """Timed, and never out of memory."""
    lacks: tuple[int, ...]
    """Skipped for memory, or out of it, in some pass."""


@dataclass(frozen=True)
class Fits:
    """One series that lacked memory somewhere, off or on."""

    series: Series
    off: Side
    on: Side

    @property
    def on_only(self) -> tuple[int, ...]:
        return tuple(tokens for tokens in self.on.fits if tokens in self.off.lacks)

    @property
    def off_only(self) -> tuple[int, ...]:
        return tuple(tokens for tokens in self.off.fits if tokens in self.on.lacks)


def fits(cases: Iterable[Sequence[Trial]]) -> tuple[Fits, ...]:
    """Every series of T2o with a token count at which it or its T1 lacked memory, in order of first appearance."""
    series: dict[Series, list[tuple[int, Sequence[Trial]]]] = {}
    for passes in cases:
        workload, link = passes[0].workload, passes[0].link
        for variant in join.variants_of(passes):
            if variant.role == "T2o":
                series.setdefault(series_of(workload, link, variant), []).append((workload.tokens, passes))
    found = []
    for key, counts in series.items():
        counts.sort(key=lambda count: count[0])
        off, on = (_side(counts, variant) for variant in (key.variant.unsplit(), key.variant))
        if off.lacks or on.lacks:
            found.append(Fits(key, off, on))
    return tuple(found)


def _side(counts: Sequence[tuple[int, Sequence[Trial]]], variant: Variant) -> Side:
    fitting, lacking = [], []
    for tokens, passes in counts:
        measured = join.measured(passes, variant).values()
        if any(map(_lacks_memory, measured)):
            lacking.append(tokens)
        elif any(m.status is Status.OK for m in measured):
            fitting.append(tokens)
    return Side(tuple(fitting), tuple(lacking))


def _lacks_memory(m: Measurement) -> bool:
    return m.status is Status.OOM or (m.status is Status.SKIPPED and (m.reason or "").startswith(MEMORY_NEED))
