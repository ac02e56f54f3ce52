"""Which row of NEW stands against which row of BASE: the same case and variant, or one that differs along an axis."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, get_args

from bench.errors import BenchError
from bench.hints import not_allowed
from bench.identity import case_id, variant_id
from bench.lazy import lazy
from moe_impl.options import Link, Precision, Variant, Workload, default_experts

OPTION = "--across"


@dataclass(frozen=True, eq=False)
class Place:
    """An overlapped variant of a case: a row of one run. Equal where the ids are."""

    workload: Workload
    link: Link
    variant: Variant

    @lazy
    def ids(self) -> tuple[str, str]:
        """Of the case and of the variant."""
        return case_id(self.workload, self.link), variant_id(self.variant)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.ids == other.ids

    def __hash__(self) -> int:
        return hash(self.ids)


class Axis(Protocol):
    """What two cases may differ in and still be compared."""

    name: str
    order: str
    """What ``later`` asks of BASE and NEW, in words."""

    def value(self, place: Place) -> str:
        """Where on the axis it stands."""

    def later(self, value: str, held: Iterable[str]) -> tuple[str, ...]:
        """Of the values that NEW holds, those that may stand against ``value`` of BASE."""

    def keys(self, place: Place) -> Iterable[Hashable]:
        """Equal where places differ along this axis alone; best match first."""


class AcrossPrecision:
    """The same work in fewer bits."""

    name = "precision"
    order = f"BASE's must come before NEW's in {', '.join(get_args(Precision))}"
    """One folder that holds several gives each pair once."""

    def value(self, place: Place) -> str:
        return place.workload.precision

    def later(self, value: str, held: Iterable[str]) -> tuple[str, ...]:
        known: tuple[str, ...] = get_args(Precision)
        return tuple(later for later in known[known.index(value) + 1 :] if later in held)

    def keys(self, place: Place) -> Iterable[Hashable]:
        """The same backend, then each precision's usual one: it follows the axis."""
        workload = replace(place.workload, precision="bf16", dispatch_dtype="bf16")
        yield workload, place.link, place.variant
        if place.variant.experts == default_experts(place.workload.precision):
            yield workload, place.link, replace(place.variant, experts=default_experts("bf16")), "usual experts"


@dataclass(frozen=True)
class AcrossLink:
    """The same work over another link: a real one against the stand-in that was fitted to it."""

    one_run: bool = False
    """BASE and NEW are one folder: each pair of links once, in the order in which the run holds them."""
    name = "link"
    order = "they must name different links"

    def value(self, place: Place) -> str:
        return place.link.name

    def later(self, value: str, held: Iterable[str]) -> tuple[str, ...]:
        others = list(dict.fromkeys(held))
        if self.one_run:
            return tuple(others[others.index(value) + 1 :])
        return tuple(sorted(other for other in others if other != value))

    def keys(self, place: Place) -> Iterable[Hashable]:
        yield place.workload, place.variant


AXES: dict[str, Axis] = {axis.name: axis for axis in (AcrossPrecision(), AcrossLink())}


def axis_named(name: str | None, *, one_run: bool = False) -> Axis | None:
    """The axis that ``--across`` names; None for none.

    Args:
        name: as the user wrote it.
        one_run: BASE and NEW are one folder.

    Raises:
        BenchError: no such axis.
    """
    if name is None:
        return None
    if name not in AXES:
        raise BenchError(f"{OPTION}: {not_allowed(name, AXES)}")
    return AcrossLink(one_run=True) if one_run and name == AcrossLink.name else AXES[name]


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
        value = axis.value(place) if axis else None
        for key in _keys(place, axis):
            index.setdefault((value, key), place)
    held = [value for value in dict.fromkeys(value for value, _ in index) if value is not None]
    pairs, missing = [], []
    for place in base:
        for value in axis.later(axis.value(place), held) if axis else [None]:
            found = next((index[value, key] for key in _keys(place, axis) if (value, key) in index), None)
            if found is None:
                missing.append((place, value))
            else:
                pairs.append((place, found))
    used = {found for _, found in pairs}
    reachable = {value for place in base for value in (axis.later(axis.value(place), held) if axis else ())}
    lonely = [p for p in new if p not in used and (axis is None or axis.value(p) in reachable)]
    return Pairing(tuple(pairs), tuple(missing), tuple(lonely))


def _keys(place: Place, axis: Axis | None) -> Iterable[Hashable]:
    if axis is not None:
        return axis.keys(place)
    return (place.ids,)
