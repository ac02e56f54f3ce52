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
    """(median, lowest, highest) over passes of the first backend's time over this one's; None where none has both."""
    roofline: float | None
    """Least time at the measured ceilings, weights in the precision's own bytes, over ``seconds``."""
    relative_error: float
    """The largest of its outputs against the oracle's."""


@dataclass(frozen=True)
class Backends:
    """One case, T1 on two backends or more that differ in nothing else."""

    workload: Workload
    link: Link
    setting: Variant
    """What they have in common: T1 on experts ``auto``."""
    times: tuple[GemmTime, ...]
    """As the sweep file lists them."""


def backends(cases: Iterable[Sequence[Trial]], ceilings: Mapping[str, float | None]) -> tuple[Backends, ...]:
    """Of every case, and every setting of T1, that was timed on several.

    Args:
        cases: the Trials of each.
        ceilings: environment.json's (bench.deciding.stage_rates).
    """
    found = []
    for passes in cases:
        alike: dict[Variant, list[Variant]] = {}
        for variant in join.variants_of(passes):
            if variant.role == "T1" and any(m.stages for m in join.timed(passes, variant).values()):
                alike.setdefault(replace(variant, experts="auto"), []).append(variant)
        for setting, variants in alike.items():
            if len(variants) > 1:
                times = tuple(_time(passes, variant, variants[0], ceilings) for variant in variants)
                found.append(Backends(passes[0].workload, passes[0].link, setting, times))
    return tuple(found)


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
