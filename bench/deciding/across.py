"""Which row of NEW stands against which row of BASE: the same case and variant, or one that differs along an axis."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from bench.errors import BenchError
from bench.hints import not_allowed
from bench.identity import case_id, variant_id
from moe_impl.options import Link, Precision, Variant, Workload, default_experts

OPTION = "--across"


@dataclass(frozen=True)
class Place:
    """An overlapped variant of a case: a row of one run."""

    workload: Workload
    link: Link
    variant: Variant


@dataclass(frozen=True)
class Axis:
    """A field of Workload along which two cases may differ and still be compared."""

    name: str
    values: tuple[str, ...]
    """In the order in which they stand against one another: BASE's comes before NEW's, so that one folder that holds
    several gives each pair once."""
    without: Callable[[Workload], Workload]
    """The workload with this axis, and the fields that follow it, set to one value."""
    usual_experts: Callable[[Workload], str]
    """The backend a sweep takes for this workload: it may follow the axis."""

    def value(self, workload: Workload) -> str:
        return str(getattr(workload, self.name))

    def later(self, value: str) -> tuple[str, ...]:
        """Values that may stand against ``value`` of BASE."""
        return self.values[self.values.index(value) + 1 :]

    def keys(self, place: Place) -> Iterable[Hashable]:
        """Equal where places differ along this axis alone; best match first: the same backend, then each usual one."""
        workload = self.without(place.workload)
        yield workload, place.link, place.variant
        if place.variant.experts == self.usual_experts(place.workload):
            yield workload, place.link, replace(place.variant, experts=default_experts("bf16")), "usual experts"


AXES = {
    axis.name: axis
    for axis in (
        Axis(
            "precision",
            get_args(Precision),
            without=lambda workload: replace(workload, precision="bf16", dispatch_dtype="bf16"),
            usual_experts=lambda workload: default_experts(workload.precision),
        ),
    )
}


def axis_named(name: str | None) -> Axis | None:
    """The axis that ``--across`` names; None for none.

    Raises:
        BenchError: no such axis.
    """
    if name is None:
        return None
    if name not in AXES:
        raise BenchError(f"{OPTION}: {not_allowed(name, AXES)}")
    return AXES[name]


@dataclass(frozen=True)
class Pairing:
    """What stands against what."""

    pairs: tuple[tuple[Place, Place], ...]
    """(BASE, NEW), in BASE's order."""
    without_counterpart: tuple[tuple[Place, str | None], ...]
    """Rows of BASE that NEW lacks, with the value of the axis at which it does."""
    only_in_new: tuple[Place, ...]


def pair(base: Sequence[Place], new: Sequence[Place], axis: Axis | None) -> Pairing:
    """Each row of BASE with its counterpart in NEW; along an axis with one at each later value that NEW holds."""
    index: dict[tuple[str | None, Hashable], Place] = {}
    for place in new:
        value = axis.value(place.workload) if axis else None
        for key in _keys(place, axis):
            index.setdefault((value, key), place)
    held = {value for value, _ in index}
    pairs, missing = [], []
    for place in base:
        targets = [v for v in axis.later(axis.value(place.workload)) if v in held] if axis else [None]
        for value in targets:
            found = next((index[value, key] for key in _keys(place, axis) if (value, key) in index), None)
            if found is None:
                missing.append((place, value))
            else:
                pairs.append((place, found))
    used = {found for _, found in pairs}
    reachable = {value for place in base for value in (axis.later(axis.value(place.workload)) if axis else ())}
    lonely = [p for p in new if p not in used and (axis is None or axis.value(p.workload) in reachable)]
    return Pairing(tuple(pairs), tuple(missing), tuple(lonely))


def _keys(place: Place, axis: Axis | None) -> Iterable[Hashable]:
    if axis is not None:
        return axis.keys(place)
    return ((case_id(place.workload, place.link), variant_id(place.variant)),)
