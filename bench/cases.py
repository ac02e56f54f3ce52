"""A Case: one workload on one link, and the variants compared on it; and the cases of a sweep file. Torch-free."""

import itertools
import math
from dataclasses import dataclass, fields

from bench import identity
from bench.config import SweepConfig
from bench.errors import BenchError
from bench.units import format_count
from moe_impl.options import Link, Precision, Variant, Workload

MAX_PAIRS = 100_000
"""(case, variant) pairs as the file lists them. More is a mistake: at a second each it is over a day."""


@dataclass(frozen=True)
class Case:
    """Everything that is the same on both sides of a comparison, and what is compared."""

    workload: Workload
    link: Link
    variants: tuple[Variant, ...]
    """Normalized and distinct, each T2o preceded by its own T1 and T2s."""

    @property
    def case_id(self) -> str:
        return identity.case_id(self.workload, self.link)


def count(config: SweepConfig) -> int:
    """Number of cases, without making them."""
    return math.prod(len(getattr(config.case, axis.name)) for axis in fields(config.case))


def with_companions(variant: Variant) -> tuple[Variant, ...]:
    """The variant, normalized, preceded by the T1 and T2s it is compared with (fewer where it is one of them)."""
    variant = variant.normalized()
    return tuple(dict.fromkeys((variant.unsplit(), variant.split_serial(), variant)))


def variants_of(config: SweepConfig, precision: Precision) -> tuple[Variant, ...]:
    """All variants of a case of this precision, in the file's order."""
    listed = itertools.chain.from_iterable(spec.variants(precision) for spec in config.variants)
    return tuple(dict.fromkeys(itertools.chain.from_iterable(map(with_companions, listed))))


def expand(config: SweepConfig) -> list[Case]:
    """All cases, in the order of CaseAxes' fields: precision outermost, tokens innermost.

    Raises:
        BenchError: more than MAX_PAIRS (case, variant) pairs.
    """
    pairs = count(config) * sum(spec.size for spec in config.variants)
    if pairs > MAX_PAIRS:
        lengths = {axis.name: len(getattr(config.case, axis.name)) for axis in fields(config.case)}
        product = " x ".join(f"{name} {format_count(length)}" for name, length in lengths.items() if length > 1)
        raise BenchError(
            f"the sweep has {format_count(pairs)} (case, variant) pairs, at most {format_count(MAX_PAIRS)} are allowed:"
            f" shorten a list ({f'{product} cases, ' if product else ''}times the listed variants)"
        )
    variants = {precision: variants_of(config, precision) for precision in config.case.precision}
    names = [axis.name for axis in fields(config.case)]
    cases = []
    for values in itertools.product(*(getattr(config.case, name) for name in names)):
        point = dict(zip(names, values, strict=True))
        link = point.pop("link")
        workload = Workload(**point)
        cases.append(Case(workload, link, variants[workload.precision]))
    return cases
