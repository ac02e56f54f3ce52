"""The report's timelines: pictures, tables and sentences of every profile that a run keeps."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench import units
from bench.deciding.join import series_of
from bench.profiling.kept import ANALYSIS, TIMELINES, Kept, Pair, Profiled
from bench.render import timeline_plot, words
from bench.render.analysis import ALWAYS, SHARES
from bench.render.picture import Picture
from bench.render.tables import Table, unit_for
from moe_impl.stages import Stage

FIGURE = "timeline"


@dataclass(frozen=True)
class Block:
    """One overlapped variant of a profile beside its T1 and T2s."""

    title: str
    picture: Picture
    tables: tuple[Table, ...]
    causes: tuple[str, ...]
    """Why no more is hidden, and what to do."""
    doubts: tuple[str, ...]


def of(kept: Kept) -> list[Block]:
    """The blocks of one profile."""
    return [_block(kept, pair, index) for index, pair in enumerate(kept.pairs, 1)]


def pictures(profiles: Iterable[Kept]) -> list[Picture]:
    """One a block."""
    return [block.picture for kept in profiles for block in of(kept)]


def about(kept: Kept) -> str:
    """Where it is, and what repeats it."""
    said = f"Profiled with {kept.tool}; raw reports and {ANALYSIS} in {TIMELINES}/{kept.folder}."
    if kept.missing:
        names = ", ".join(variant.label for variant in kept.missing)
        said += f" Not told apart in them, and so not shown: {names}."
    return said


def _block(kept: Kept, pair: Pair, index: int) -> Block:
    work, link = kept.case.workload, kept.case.link
    title = f"{words.series(series_of(work, link, pair.on.variant))} · {words.count(work.tokens)} tokens"
    shown = [timeline_plot.Shown(_name(one), one.strip) for one in pair.all]
    picture = Picture(
        f"{FIGURE}-{index}",
        f"Timeline: {title}",
        timeline_plot.svg(f"Timeline: {title}", shown),
        folder=f"{TIMELINES}/{kept.folder}",
    )
    return Block(title, picture, (_shares(pair), _stages(pair)), tuple(_causes(pair.on)), tuple(_doubts(pair)))


def _name(one: Profiled) -> str:
    return f"{one.variant.role} {one.variant.label}"


def _shares(pair: Pair) -> Table:
    """Off beside on: medians over iterations."""
    unit = unit_for(one.analysis.span_ns * 1e-9 for one in pair.all)

    def line(title: str, cell: Callable[[Profiled], str]) -> tuple[str, ...]:
        return (title, *(cell(one) for one in pair.all))

    def hidden(one: Profiled) -> str:
        return words.percent(one.analysis.overlap)

    shares = [
        line(title, lambda one, name=name: units.format_percent(one.analysis.share(name)))  # type: ignore[misc]
        for title, name in SHARES.items()
        if title in (*ALWAYS, *IDLE) or any(one.analysis.share(name) for one in pair.all)
    ]
    return Table(
        "Shares of the span",
        ("", *(_name(one) for one in pair.all)),
        (
            line(f"span, {unit.name}", lambda one: unit.text(one.analysis.span_ns * 1e-9)),
            *shares,
            line("communication that was hidden", hidden),
        ),
        (
            "Medians over the profiled iterations; a profiler slows what it watches, so verdicts come from timed "
            "passes alone. Compute and communication overlap: shares add up to more than 100 %.",
        ),
    )


IDLE = ("of it blocking compute", "idle, host was late", "idle, something was waited for")
"""Shown, too, where there is none: nothing of it is an answer."""


def _stages(pair: Pair) -> Table:
    """Busy time a stage, and its dilation."""
    there = {stage for one in pair.all for stage in one.analysis.stages_ns}
    ordered = [str(stage) for stage in Stage if stage in there] + sorted(there - set(Stage))
    unit = unit_for(one.analysis.stages_ns.get(stage, 0) * 1e-9 for one in pair.all for stage in ordered)

    def cells(stage: str) -> tuple[str, ...]:
        times = (one.analysis.stages_ns.get(stage) for one in pair.all)
        return (
            *(unit.text(None if time is None else time * 1e-9) for time in times),
            words.ratio(pair.dilation(stage)),
        )

    return Table(
        "Stage by stage: busy time, and its dilation",
        ("stage", *(f"{one.variant.role} {unit.name}" for one in pair.all), "dilation T2o / T2s"),
        tuple((stage, *cells(stage)) for stage in ordered),
    )


def _causes(on: Profiled) -> Iterable[str]:
    for cause in on.analysis.causes:
        yield f"{cause.name} ({units.format_percent(cause.share)}): {cause.evidence}; {cause.remedy}."
    if not on.analysis.causes:
        yield f"{words.percent(on.analysis.overlap)} of communication is hidden; no cause was found for the rest."


def _doubts(pair: Pair) -> Iterable[str]:
    told: dict[str, list[str]] = {}
    for one in pair.all:
        for doubt in one.analysis.doubts:
            told.setdefault(doubt, []).append(one.variant.role)
    for doubt, roles in told.items():
        yield f"Doubt ({', '.join(roles)}): {doubt}."
