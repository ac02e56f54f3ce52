"""Two runs on the same axes: which of their series share a plot. Makes no text."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.errors import BenchError, Exit
from bench.report_model import ReportModel, Section

FREE = frozenset({"precision", "dispatch_dtype"})
"""Fields of a Workload in which the series of one plot may differ: what two runs are put beside each other for."""


@dataclass(frozen=True)
class Side:
    """One run and what to call it."""

    name: str
    model: ReportModel


@dataclass(frozen=True)
class Shared:
    """Series of both runs that ask the same of the layer; they may differ in precision, link and machine."""

    curves: tuple[tuple[Side, Section], ...]


@dataclass(frozen=True)
class Beside:
    """Both runs."""

    sides: tuple[Side, ...]
    panels: tuple[Shared, ...]


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
    sides = tuple(Side(name, model) for name, model in zip(names, models, strict=True))
    groups: dict[tuple[Any, ...], list[tuple[Side, Section]]] = {}
    for side in sides:
        for section in side.model.sections:
            groups.setdefault(_shape(section), []).append((side, section))
    panels = [Shared(tuple(curves)) for curves in groups.values()]
    if not any(len({side.name for side, _ in panel.curves}) > 1 for panel in panels):
        raise BenchError(
            f"{models[0].run} and {models[1].run}: nothing to show on the same axes, {_why_not(sides)} "
            "(may differ: tokens, precision, dispatch_dtype, link, variant, machine)",
            code=Exit.NOT_COMPARABLE,
        )
    return Beside(sides, tuple(panels))


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
