"""How far overlapped variants are from their ideal, and what their timelines say of it: a table, and a line."""

from bench import units
from bench.deciding.join import series_of
from bench.profiling.kept import Kept
from bench.profiling.shortfall import EXPLAINED, Shortfall
from bench.render import words
from bench.render.tables import Table, unit_for
from bench.report_model import ReportModel

MOST_STAGES = 3
"""Shown of those that dilate; the table of stages has all."""


def table(found: Shortfall) -> Table:
    """T2o, its ideal, and what lies between them, with shares of T2o."""
    unit = unit_for((found.t2o_s, found.ideal_s))

    def line(title: str, seconds: float, share: float, *, signed: bool = True) -> tuple[str, ...]:
        return title, unit.text(seconds, signed=signed), units.format_percent(share)

    stages = [
        line(f"of it {stage}", seconds, share)
        for (stage, seconds), (_, share) in zip(found.stages, found.stage_shares, strict=True)
    ]
    return Table(
        "From the ideal to T2o",
        ("", unit.name, "of T2o"),
        (
            line("T2o, timed", found.t2o_s, 1.0, signed=False),
            line("ideal", found.ideal_s, found.ideal_share, signed=False),
            line("T2o - ideal", found.gap_s, found.gap_share),
            line(f"dilation of {found.lane}, profiled", found.dilation_s, found.dilation_share),
            *stages[:MOST_STAGES],
            line(f"idle of {found.lane} beyond the ideal's, profiled", found.idle_s, found.idle_share),
            line("of it launch-starved", found.starved_s, found.starved_share),
            line("remainder", found.remainder_s, found.remainder_share),
        ),
        (_verdict(found), _modelled(found)),
    )


def _verdict(found: Shortfall) -> str:
    share, bound = units.format_percent(abs(found.remainder_share)), units.format_percent(EXPLAINED)
    of_gap = f" ({units.format_percent(abs(found.remainder_s / found.gap_s))} of the distance)" if found.gap_s else ""
    if found.explained:
        return f"Explained: the remainder is {share} of T2o{of_gap}, at most {bound} of T2o."
    return f"Not explained: the remainder is {share} of T2o{of_gap}, more than {bound} of T2o."


def _modelled(found: Shortfall) -> str:
    """What of it the model of the schedule expects."""
    longer = units.format_seconds(found.order_s)
    said = f"By the model, {found.variant.order} must idle {longer} more than the ideal's order"
    if found.shared_sms_s is None:
        return f"{said}."
    return f"{said}, and communication's SMs slow compute by {units.format_seconds(found.shared_sms_s)}."


def lines(model: ReportModel) -> list[str]:
    """A sentence for each profile of an overlapped variant."""
    cases = {kept.folder: kept for kept in model.timelines}
    return [_line(found, cases[found.folder]) for found in model.shortfalls]


def _line(found: Shortfall, kept: Kept) -> str:
    work = kept.case.workload
    unit = unit_for((found.t2o_s,))

    def text(seconds: float) -> str:
        return f"{unit.text(seconds, signed=True)} {unit.name}"

    return (
        f"{words.short_series(series_of(work, kept.case.link, found.variant))}, {words.count(work.tokens)} tokens: "
        f"{text(found.gap_s)} from the ideal, {units.format_percent(found.gap_share)} of T2o. Profiled with "
        f"{found.tool}: dilation of {found.lane} {text(found.dilation_s)}, idle {text(found.idle_s)}. {_verdict(found)}"
    )
