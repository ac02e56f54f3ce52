"""Two runs on the same axes: which of their series share a plot, which a table, and what compares the two. Makes no
text."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bench.deciding import facts
from bench.deciding.across import AXES, Place, pair
from bench.deciding.facts import Differing
from bench.errors import BenchError, Exit
from bench.report_model import ReportModel, Section
from bench.results import Trial
from moe_impl.options import default_experts

FREE = frozenset({"precision", "dispatch_dtype"})
"""Fields of a Workload in which the series of one plot may differ: what two runs are put beside each other for."""


@dataclass(frozen=True)
class Side:
    """One run and what to call it."""

    letter: str
    """``A`` or ``B``: what pictures and tables call it."""
    name: str
    """Of its folder; the whole path where both folders have one name."""
    model: ReportModel


Pair = tuple[Section | None, Section | None]
"""What A and B say of one series; None: that run has none like it."""


@dataclass(frozen=True)
class Shared:
    """Series of both runs that ask the same of the layer; they may differ in precision, link and machine."""

    curves: tuple[tuple[Side, Section], ...]
    pairs: tuple[Pair, ...]
    """The same series, those of both runs first."""


@dataclass(frozen=True)
class Joined:
    """How ``bench compare`` takes the two."""

    base: Side
    new: Side
    across: str | None
    """The axis along which rows differ; None: by case and variant."""
    rows: int
    """Of BASE that stand against one of NEW."""
    rows_in_all: int
    unlike: tuple[Differing, ...]
    """Why it must be told to compare them anyway; empty where it need not."""


@dataclass(frozen=True)
class Beside:
    """Both runs."""

    sides: tuple[Side, ...]
    panels: tuple[Shared, ...]
    joined: Joined | None
    """None: no row of one stands against a row of the other."""


def build(models: Sequence[ReportModel]) -> Beside:
    """Put the reports of two runs together.

    Raises:
        BenchError: they are one run, or share no shape of the layer.
    """
    paths = [Path(model.run).resolve() for model in models]
    if len(set(paths)) < len(paths):
        raise BenchError(f"{models[0].run}: found one run twice, expected two")
    short = [path.name for path in paths]
    names = short if len(set(short)) == len(short) else [model.run for model in models]
    sides = tuple(Side(letter, name, model) for letter, name, model in zip("AB", names, models, strict=True))
    groups: dict[tuple[Any, ...], list[tuple[Side, Section]]] = {}
    for side in sides:
        for section in side.model.sections:
            groups.setdefault(_shape(section), []).append((side, section))
    panels = [Shared(tuple(curves), _pairs(curves)) for curves in groups.values()]
    if not any(len({side.letter for side, _ in panel.curves}) > 1 for panel in panels):
        raise BenchError(
            f"{models[0].run} and {models[1].run}: nothing to show on the same axes, {_why_not(sides)} "
            "(may differ: tokens, precision, dispatch_dtype, link, variant, machine)",
            code=Exit.NOT_COMPARABLE,
        )
    return Beside(sides, tuple(panels), _joined(sides))


def _pairs(curves: Sequence[tuple[Side, Section]]) -> tuple[Pair, ...]:
    ours = [section for side, section in curves if side.letter == "A"]
    theirs = [section for side, section in curves if side.letter == "B"]
    found: dict[int, Section] = {}
    free = dict(enumerate(theirs))
    for key in ALIKE:
        for at, section in enumerate(ours):
            alike = next((place for place, one in free.items() if key(one) == key(section)), None)
            if at not in found and alike is not None:
                found[at] = free.pop(alike)
    both: list[Pair] = [(section, found[at]) for at, section in enumerate(ours) if at in found]
    alone: list[Pair] = [(section, None) for at, section in enumerate(ours) if at not in found]
    return (*both, *alone, *((None, section) for section in free.values()))


def _same(section: Section) -> Hashable:
    return section.series


def _over_any_link(section: Section) -> Hashable:
    return section.series.workload, section.series.variant


def _in_any_precision(section: Section) -> Hashable:
    """The backend follows the precision where it is that precision's usual one."""
    variant = section.series.variant
    usual = variant.experts == default_experts(section.series.workload.precision)
    return usual, replace(variant, experts=default_experts("bf16")) if usual else variant


ALIKE: tuple[Callable[[Section], Hashable], ...] = (_same, _over_any_link, _in_any_precision)
"""Of two series of one panel: what must be equal for them to stand beside each other, the best match first."""


def _joined(sides: Sequence[Side]) -> Joined | None:
    """By case and variant if that joins anything, else along the first axis that does, either run as BASE."""
    one, other = ((side, _places(side)) for side in sides)
    for axis in (None, *AXES.values()):
        for (base, base_rows), (new, new_rows) in ((one, other), (other, one)):
            if pairs := pair(base_rows, new_rows, axis).pairs:
                rows = len({place for place, _ in pairs})
                unlike = facts.unlike(_trials(base), _trials(new))
                return Joined(base, new, axis.name if axis else None, rows, len(base_rows), unlike)
    return None


def _places(side: Side) -> list[Place]:
    rows = (row.comparison for section in side.model.sections for row in section.rows)
    return [Place(row.workload, row.link, row.variant) for row in rows]


def _trials(side: Side) -> list[Trial]:
    return [trial for section in side.model.sections for row in section.rows for trial in row.passes]


def _why_not(sides: Sequence[Side]) -> str:
    """In what the first series differ."""
    firsts = [side.model.sections[0].series.workload for side in sides if side.model.sections]
    if len(firsts) < len(sides):
        return "one timed no overlapped variant"
    one, other = firsts
    names = [spec.name for spec in fields(one) if spec.name not in FREE]
    unlike = [name for name in names if getattr(one, name) != getattr(other, name)]
    return f"their layers differ in {', '.join(unlike)}"


def _shape(section: Section) -> tuple[Any, ...]:
    workload = section.series.workload
    return tuple(getattr(workload, spec.name) for spec in fields(workload) if spec.name not in FREE)
