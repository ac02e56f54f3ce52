"""Backends side by side: the two grouped GEMMs of T1, from the instrumented passes. Times and ratios, no verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench.deciding import join
from bench.deciding.stage_rates import StageRate, stage_rates
from bench.results import Trial
from moe_impl.options import Link, Variant, Workload
from moe_impl.stages import Stage

GEMMS = frozenset({str(Stage.GEMM1), str(Stage.GEMM2)})


@dataclass(frozen=True)
class GemmTime:
    """gemm1 + gemm2 of one layer of an unsplit run."""

    variant: Variant
    seconds: float
    speedup: tuple[float, float, float] | None
    """(median, lowest, highest) over passes of the reference's time over this one's; None where no pass has both."""
    roofline: float | None
    """Least time at the measured ceilings, weights in the precision's own bytes, over ``seconds``."""
    relative_error: float
    """The largest of its outputs against the oracle's."""

    @property
    def spread(self) -> float:
        """How far the speed-ups of two passes are apart, of their median; 0 without one."""
        if self.speedup is None:
            return 0.0
        middle, lowest, highest = self.speedup
        return (highest - lowest) / middle


@dataclass(frozen=True)
class Backends:
    """One case, T1 on two backends or more that differ in nothing else."""

    workload: Workload
    link: Link
    setting: Variant
    """What they have in common: T1 on experts ``auto``."""
    reference: Variant
    """That whose time the speed-ups compare with: of all token counts the same, also where it was not timed."""
    times: tuple[GemmTime, ...]
    """As the sweep file lists them."""


def backends(cases: Iterable[Sequence[Trial]], ceilings: Mapping[str, float | None]) -> tuple[Backends, ...]:
    """Of every case, and every setting of T1, that was timed on several.

    Args:
        cases: the Trials of each.
        ceilings: environment.json's (bench.deciding.stage_rates).
    """
    compared = [(passes, setting, timed) for passes in cases for setting, timed in _alike(passes) if len(timed) > 1]
    references: dict[join.Series, Variant] = {}
    for passes, setting, timed in compared:
        series = _series(passes, setting)
        known = references.get(series, timed[0])
        references[series] = next(one for one in join.variants_of(passes) if one in (known, timed[0]))
    return tuple(
        _beside(passes, setting, timed, references[_series(passes, setting)], ceilings)
        for passes, setting, timed in compared
    )


def _alike(passes: Sequence[Trial]) -> Iterable[tuple[Variant, list[Variant]]]:
    """T1s of one case that have stage times and differ in their backends alone: (what they share, they)."""
    alike: dict[Variant, list[Variant]] = {}
    for variant in join.variants_of(passes):
        if variant.role == "T1" and any(m.stages for m in join.timed(passes, variant).values()):
            alike.setdefault(replace(variant, experts="auto"), []).append(variant)
    return alike.items()


def _series(passes: Sequence[Trial], setting: Variant) -> join.Series:
    return join.series_of(passes[0].workload, passes[0].link, setting)


def _beside(
    passes: Sequence[Trial],
    setting: Variant,
    timed: Sequence[Variant],
    reference: Variant,
    ceilings: Mapping[str, float | None],
) -> Backends:
    times = tuple(_time(passes, variant, reference, ceilings) for variant in timed)
    return Backends(passes[0].workload, passes[0].link, setting, reference, times)


def _gemms(rates: Iterable[StageRate]) -> list[StageRate]:
    return [rate for rate in rates if rate.stage in GEMMS]


def _time(passes: Sequence[Trial], variant: Variant, first: Variant, ceilings: Mapping[str, float | None]) -> GemmTime:
    rates = _gemms(stage_rates(passes, variant, ceilings))
    seconds = sum(rate.seconds for rate in rates)
    least_s = [None if rate.roofline is None else rate.roofline * rate.seconds for rate in rates]
    checks = [m.check for m in join.timed(passes, variant).values() if m.check is not None]
    return GemmTime(
        variant,
        seconds,
        _speedup(passes, first, variant),
        None if None in least_s else sum(filter(None, least_s)) / seconds,
        max(check.relative_error for check in checks),
    )


def _speedup(passes: Sequence[Trial], first: Variant, variant: Variant) -> tuple[float, float, float] | None:
    taken_s = [
        [sum(rate.seconds for rate in _gemms(stage_rates([trial], one, {}))) for one in (first, variant)]
        for trial in passes
    ]
    ratios = [theirs_s / mine_s for theirs_s, mine_s in taken_s if theirs_s and mine_s]
    return (median(ratios), min(ratios), max(ratios)) if ratios else None
