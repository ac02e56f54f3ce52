"""The report's timelines: pictures, tables and sentences of every profile that a run keeps."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bench import units
from bench.deciding.join import series_of
from bench.profiling.agreement import ALIKE, Agreement, agreements
from bench.profiling.kept import TIMELINES, Kept, Pair, Profiled
from bench.profiling.shortfall import Shortfall
from bench.render import shortfall, timeline_plot, words
from bench.render.analysis import ALWAYS, SHARES
from bench.render.picture import Picture
from bench.render.tables import Table, unit_for
from bench.report_model import ReportModel
from bench.timeline.read import ANALYSIS
from moe_impl.options import Variant
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


Timed = Mapping[tuple[str, Variant], float]
"""(case_id, variant) -> the timed median, in seconds."""


def timed(model: ReportModel) -> Timed:
    """What the timed passes of a run say of its variants."""
    found: dict[tuple[str, Variant], float] = {}
    for row in (row for section in model.sections for row in section.rows):
        compared, why = row.comparison, row.decomposition
        times = {
            compared.baseline: compared.baseline_s,
            compared.variant: compared.variant_s,
            compared.variant.split_serial(): why.t2s_s if why else None,
        }
        found |= {(compared.case_id, variant): time for variant, time in times.items() if time is not None}
    return found


def of(kept: Kept, times: Timed = MappingProxyType({}), shortfalls: Sequence[Shortfall] = ()) -> list[Block]:
    """The blocks of one profile.

    Args:
        kept: the profile.
        times: of the run that keeps it, to say how far the profiler moved what it watched.
        shortfalls: of the same run.
    """
    mine = {found.variant: found for found in shortfalls if found.folder == kept.folder}
    return [_block(kept, pair, index, times, mine.get(pair.on.variant)) for index, pair in enumerate(kept.pairs, 1)]


def missing(model: ReportModel) -> list[str]:
    """Commands that profile the most telling cases, those left out that the run keeps profiles of."""
    there = {kept.case.case_id for kept in model.timelines}
    cases = dict.fromkeys(row.comparison.case_id for row in model.telling)
    return [shlex.join(["bench", "profile", model.run, "--case", case]) for case in cases if case not in there]


def between_tools(profiles: Sequence[Kept]) -> list[str]:
    """``torch and nsys agree within 3 %: T1 / T2o is 1.137 and 1.122, ..``, a line for two profiles of one case."""
    return [_agreement(found) for found in agreements(profiles)]


def _agreement(found: Agreement) -> str:
    bound = units.format_percent(ALIKE)
    how = f"agree within {bound}" if found.alike else f"do not agree within {bound}"
    ratios = " and ".join(f"{ratio:.3f}" for ratio in found.off_on)
    return (
        f"{' and '.join(found.tools)} {how} ({found.on.label}): T1 / T2o is {ratios}, {words.percent(found.apart)} "
        f"apart; shares of the span differ by {words.percent(found.share)} at most ({found.stage} in {found.role})."
    )


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


def _block(kept: Kept, pair: Pair, index: int, times: Timed, short: Shortfall | None) -> Block:
    work, link = kept.case.workload, kept.case.link
    title = f"{words.series(series_of(work, link, pair.on.variant))} · {words.count(work.tokens)} tokens"
    title += f" · profiled with {kept.tool}"
    shown = [timeline_plot.Shown(_name(one), one.strip) for one in pair.all]
    picture = Picture(
        f"{FIGURE}-{index}",
        f"Timeline: {title}",
        timeline_plot.svg(f"Timeline: {title}", shown),
        folder=f"{TIMELINES}/{kept.folder}",
    )
    tables = [_shares(kept, pair, times), _stages(pair), *([] if short is None else [shortfall.table(short)])]
    return Block(title, picture, tuple(tables), tuple(_causes(pair.on)), tuple(_doubts(pair)))


def _name(one: Profiled) -> str:
    return f"{one.variant.role} {one.variant.label}"


def _shares(kept: Kept, pair: Pair, times: Timed) -> Table:
    """Off beside on: medians over iterations, the span beside the timed one."""
    unit = unit_for(one.analysis.span_ns * 1e-9 for one in pair.all)

    def line(title: str, cell: Callable[[Profiled], str]) -> tuple[str, ...]:
        return (title, *(cell(one) for one in pair.all))

    def hidden(one: Profiled) -> str:
        return words.percent(one.analysis.overlap)

    def beside_timed(one: Profiled) -> str:
        seconds = times.get((kept.case.case_id, one.variant))
        return words.UNKNOWN if seconds is None else f"{(one.analysis.span_ns * 1e-9 / seconds - 1) * 100:+.1f} %"

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
            *([line("span against the timed median", beside_timed)] if times else []),
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
