"""``bench analyze``: a profile's metrics for people and for scripts."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench import units
from bench.timeline.analysis import Analysis

SHARES = {
    "compute": "compute_ns",
    "communication": "comm_ns",
    "overlapped": "overlapped_ns",
    "exposed communication": "exposed_ns",
    "of it blocking compute": "blocking_ns",
    "of no known lane": "unknown_ns",
    "idle, host was late": "starved_ns",
    "idle, something was waited for": "stalled_ns",
    "idle, launch unknown": "unlaunched_ns",
}
"""What is shown -> the metric. Shares of the span; communication counts where compute runs, too."""
ALWAYS = frozenset({"compute", "communication", "overlapped", "exposed communication"})


def as_data(found: Analysis) -> dict[str, Any]:
    """``--json``: nanoseconds; -1 iteration = the trace names none."""
    return {
        "run": found.run,
        "source": found.source,
        "work": found.work,
        "streams": list(found.streams),
        "unattributed": found.unattributed,
        "overlap": found.overlap,
        "median_span_ns": found.span_ns,
        "median_stages_ns": found.stages_ns,
        "iterations": [{**asdict(m), "idle_ns": m.idle_ns, "overlap": m.overlap} for m in found.iterations],
        "causes": [asdict(cause) for cause in found.causes],
        "doubts": list(found.doubts),
    }


def headline(found: Analysis) -> str:
    """``Overlapping: 62 % of communication is hidden.``"""
    if found.overlap is None:
        return "No communication was recognised, so there is nothing to overlap."
    hidden = units.format_percent(found.overlap)
    if found.overlap < 0.01:
        return f"Not overlapping: {hidden} of communication runs beside compute."
    return f"Overlapping: {hidden} of communication runs beside compute."


def as_table(found: Analysis) -> RenderableType:
    """The headline, shares of the span, stages, doubts."""
    shares = Table.grid(padding=(0, 2))
    shares.add_column()
    shares.add_column(justify="right")
    shares.add_column(justify="right")
    for title, name in SHARES.items():
        share = found.share(name)
        if share or title in ALWAYS:
            shares.add_row(title, units.format_percent(share), units.format_seconds(share * found.span_ns * 1e-9))
    stages = Table.grid(padding=(0, 2))
    stages.add_column()
    stages.add_column(justify="right")
    for stage, busy_ns in sorted(found.stages_ns.items(), key=lambda pair: -pair[1]):
        stages.add_row(stage, units.format_seconds(busy_ns * 1e-9))
    return Group(
        Text(headline(found), style="bold"),
        Text(_of(found), style="dim"),
        *_titled("Share of an iteration, and its time", shares),
        *_titled("Stage, busy time", stages),
        *_causes(found),
        *_doubts(found),
    )


def _of(found: Analysis) -> str:
    many, span = len(found.iterations), units.format_seconds(found.span_ns * 1e-9)
    which = f"{many} iterations, medians, {span} each" if many > 1 else f"one iteration, {span}"
    named = f"{found.run}: " if found.run else ""
    streams = f"{len(found.streams)} stream{'' if len(found.streams) == 1 else 's'}"
    return f"{named}{found.source}: {found.work} pieces of GPU work on {streams}; {which}"


def _titled(title: str, table: Table) -> Iterator[RenderableType]:
    if table.row_count:
        yield ""
        yield Text(title, style="bold")
        yield table


def _causes(found: Analysis) -> Iterator[RenderableType]:
    if found.causes:
        yield ""
        yield Text("Why no more overlap", style="bold")
    for cause in found.causes:
        yield Text(f"{cause.name}: {cause.evidence}")
        yield Text(f"  {cause.remedy}", style="italic")


def _doubts(found: Analysis) -> Iterator[RenderableType]:
    for doubt in found.doubts:
        yield Text(f"Doubt: {doubt}", style="yellow")
