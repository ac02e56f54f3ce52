"""What a sweep file says, resolved: axes, variants, settings. Knows neither YAML nor text."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench.settings import MeasureSettings
from moe_impl.options import Attention, Link, Precision, RoutingKind, SkewedRouting, Variant, default_experts
from moe_impl.payload import PayloadDtype
from moe_impl.shapes import ModelShape


@dataclass(frozen=True, kw_only=True)
class CaseAxes:
    """The distinct values of every case field; their order here is the order of expansion, outermost first."""

    precision: tuple[Precision, ...]
    dispatch_dtype: tuple[PayloadDtype | None, ...] = (None,)
    """None: the precision's own."""
    model: tuple[ModelShape, ...]
    ep_size: tuple[int, ...]
    layers: tuple[int, ...] = (1,)
    routing: tuple[RoutingKind | SkewedRouting, ...] = ("model",)
    attention: tuple[Attention | None, ...] = (None,)
    """None: no attention. The shape is still open: it is each model's own."""
    link: tuple[Link, ...]
    seed: tuple[int, ...] = (0,)
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class VariantSpec:
    """One ``-`` entry of ``variants``: Variant fields and their values, which multiply."""

    values: tuple[tuple[str, tuple[Any, ...]], ...]
    """Only the fields that the file names, in Variant's order; the rest are Variant's defaults."""

    @property
    def size(self) -> int:
        """Number of combinations, T1 and T2s not counted."""
        size = 1
        for _, values in self.values:
            size *= len(values)
        return size

    def variants(self, precision: Precision) -> Iterator[Variant]:
        """All combinations; ``experts``, where unnamed, is the precision's default."""
        names = [name for name, _ in self.values]
        for point in itertools.product(*(values for _, values in self.values)):
            named = dict(zip(names, point, strict=True))
            yield Variant(**{"experts": default_experts(precision), **named})


@dataclass(frozen=True)
class SweepConfig:
    """A whole sweep file."""

    case: CaseAxes
    variants: tuple[VariantSpec, ...] = ()
    """Empty where the file lists none: then ``USE_TBO`` decides (bench.use_tbo)."""
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    question: str = ""
    """Which question the sweep asks, from the file's header comment; for people."""
