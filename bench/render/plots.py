"""The report's pictures as SVG text: speed-up over tokens, and where the time goes. Ink follows the page's colour."""

import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from bench import forked
from bench.deciding.compare import Comparison
from bench.deciding.decompose import Decomposition
from bench.render import drawing, palette, sentences, words
from bench.render.drawing import INK
from bench.render.picture import Picture
from bench.report_model import Panel, ReportModel, Section
from moe_impl.support import CPU_ONLY

INTERVAL_SHOWN = 0.5
"""Of a speed-up: how far its interval may stretch the axis."""
LEGEND_COLUMNS = 2
LEGEND_WIDTH = 104
"""Characters of a legend's row that fit below the axes: a wider one would squeeze them and be cut at both sides."""
CLOSE = 1.35
"""Ratio of two token counts whose lines leave no room for a number between them."""
MANY = 8
"""Pictures that several processes draw sooner than one."""
HEADING_WIDTH = 115
"""Characters of a heading's line that fit above the axes."""


def of(model: ReportModel) -> list[Picture]:
    """Speed-up plots first, then one decomposition a series that has one."""
    # each row is explained here and now, once for all processes
    explained = [section for section in model.sections if list(filter(None, (r.decomposition for r in section.rows)))]
    pictures = [
        *(partial(_speedups, model, panel, index) for index, panel in enumerate(model.panels, 1)),
        *(partial(_decomposition, model, section, index) for index, section in enumerate(explained, 1)),
    ]
    each = forked.each if len(pictures) >= MANY else map
    return list(each(lambda index: pictures[index](), range(len(pictures))))


def _draw(name: str, title: str, height: float, paint: Callable[[Axes], None]) -> Picture:
    return Picture(name, title, drawing.svg(height, lambda figure: paint(figure.add_subplot())))


def _heading(axes: Axes, title: str, told: Iterable[str]) -> None:
    lines = "; ".join(told).splitlines()
    wrapped = [row for line in lines for row in textwrap.wrap(line, HEADING_WIDTH, break_on_hyphens=False)]
    axes.set_title("\n".join([title, *wrapped]), fontsize=9.5)


def said(model: ReportModel, labels: Iterable[str]) -> list[str]:
    """Where it was measured, and every label of its numbers, once."""
    return [sentences.machine(model), *dict.fromkeys([*([CPU_ONLY] if model.on_cpu else []), *labels])]


def _token_axis(axes: Axes, tokens: Iterable[int]) -> None:
    ticks = sorted(set(tokens))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator([float(tick) for tick in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [words.count(tick) for tick in ticks])
    axes.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
    axes.set_xlabel("tokens of this rank in one forward (log2)")


def _speedups(model: ReportModel, panel: Panel, index: int) -> Picture:
    first = panel.sections[0].series
    shape = words.shape(first.workload)
    title = f"Speed-up of TBO over tokens: {shape}, link {words.link(first.link)}"
    curves = [
        Curve(
            section,
            words.short_series(section.series),
            coloured_by=section.series.workload.precision,
            marked_by=section.series.variant.label,
        )
        for section in panel.sections
    ]
    labels = [label for section in panel.sections for label in sentences.labels(section)]
    return replace(speedups(f"speedup-{index}", title, curves, said(model, labels)), command=panel.command)


@dataclass(frozen=True)
class Curve:
    """One series in a speed-up plot."""

    section: Section
    label: str
    coloured_by: str
    """Curves that agree in it share a colour."""
    marked_by: str
    """Those that agree in it share marker and dash."""


def speedups(name: str, title: str, curves: Sequence[Curve], told: Iterable[str]) -> Picture:
    """Speed-up over tokens, a line a curve, with its intervals and break-even.

    Args:
        name: the file's.
        title: the heading's first line.
        curves: as the legend lists them.
        told: what else the heading tells: machine and labels.
    """
    colours = list(dict.fromkeys(curve.coloured_by for curve in curves))
    marks = list(dict.fromkeys(curve.marked_by for curve in curves))
    rows = [row for curve in curves for row in curve.section.rows]
    columns, curves = _for_legend(curves)
    legend_rows = math.ceil(sum(curve.label.count("\n") + 1 for curve in curves) / columns)

    def paint(axes: Axes) -> None:
        axes.axhline(1, color=INK, linewidth=1)
        crossings = [c for curve in curves if (c := curve.section.break_even.close_crossing) is not None]
        for place, curve in enumerate(curves):
            again, coloured = divmod(colours.index(curve.coloured_by), len(palette.LINES))
            which = marks.index(curve.marked_by) + again * len(marks)  # no colour is left: other marks tell them apart
            colour = palette.LINES[coloured]
            dash = palette.pick(palette.DASHES, which)
            _line(axes, curve, colour, palette.pick(palette.MARKERS, which), dash)
            _crossing(axes, curve.section, colour, dash, place, crossings)
        _token_axis(axes, (row.tokens for row in rows))
        if crossings:
            axes.set_xlabel(f"{axes.get_xlabel()}; upright lines: about where the speed-up crosses 1")
        axes.set_ylabel("speed-up T1 / T2o (above 1: TBO faster)")
        axes.set_ylim(*_speedup_limits(row.comparison for row in rows))
        axes.grid(axis="y", color=INK, alpha=0.12)
        # below the axes: inside them it would cover the lines, which lie where 1 is
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, fontsize=9)
        _heading(axes, title, told)

    return _draw(name, title, 4.6 + 0.22 * legend_rows, paint)


def _for_legend(curves: Sequence[Curve]) -> tuple[int, list[Curve]]:
    """The legend's columns, and the curves with labels that fit into one."""
    widest = max(len(curve.label) for curve in curves)
    columns = min(len(curves), LEGEND_COLUMNS) if widest <= LEGEND_WIDTH // LEGEND_COLUMNS else 1

    def wrapped(label: str) -> str:
        return "\n".join(textwrap.wrap(label, LEGEND_WIDTH // columns, break_on_hyphens=False))

    return columns, [replace(curve, label=wrapped(curve.label)) for curve in curves]


def _speedup_limits(rows: Iterable[Comparison]) -> tuple[float, float]:
    """Show every speed-up and 1; an interval may leave the picture, else one noisy row flattens all others."""
    shown = [1.0]
    for row in rows:
        if row.speedup is not None:
            reach = INTERVAL_SHOWN * row.speedup
            shown += [row.speedup, max(row.low or 0.0, row.speedup - reach), min(row.high or 0.0, row.speedup + reach)]
    margin = 0.06 * (max(shown) - min(shown))
    return max(0.0, min(shown) - margin), max(shown) + margin


def _line(axes: Axes, curve: Curve, colour: str, marker: str, dash: str) -> None:
    known = [row for row in curve.section.rows if row.comparison.speedup is not None]
    tokens = [row.tokens for row in known]
    values = [row.comparison.speedup or 0.0 for row in known]
    ends = [(row.comparison.low, row.comparison.high) for row in known]
    style: Any = {"marker": marker, "linestyle": dash, "linewidth": 1.6, "markersize": 5}
    axes.plot(tokens, values, color=colour, label=curve.label, **style)
    for count, (low, high) in zip(tokens, ends, strict=True):
        if low is not None and high is not None:
            axes.plot([count, count], [low, high], color=colour, linewidth=3, alpha=0.55, solid_capstyle="butt")


def _crossing(axes: Axes, section: Section, colour: str, dash: str, place: int, crossings: Collection[float]) -> None:
    """About where the line crosses 1: at a height of its own, and on the side where no other crossing is close."""
    crossing = section.break_even.close_crossing
    if crossing is not None:
        axes.axvline(crossing, color=colour, linewidth=1, linestyle=dash, alpha=0.6)
        left = any(crossing < other < crossing * CLOSE for other in crossings)
        axes.annotate(
            f"≈{words.about(crossing)}",
            (crossing, 0.02 + 0.055 * place),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if left else 3, 0),
            ha="right" if left else "left",
            textcoords="offset points",
            fontsize=9,
        )


def _decomposition(model: ReportModel, section: Section, index: int) -> Picture:
    rows = [(row, row.decomposition) for row in section.rows if row.decomposition]
    title = f"Where the time goes: {words.series(section.series)}"

    def paint(axes: Axes) -> None:
        for place, (_, why) in enumerate(rows):
            _bars(axes, place, why)
        axes.axhline(1, color=INK, linewidth=0.6, alpha=0.5)
        axes.set_xticks(range(len(rows)), [words.tokens_and_time(row) for row, _ in rows])
        axes.set_xlabel("tokens of this rank in one forward; time of T1 below")
        axes.set_ylabel("time over T1 (ratio)")
        axes.use_sticky_edges = False  # the tallest bar would touch the heading
        axes.margins(y=0.08)
        axes.set_ylim(bottom=0)
        handles = _legend(lost=any(why.gain_s < 0 for _, why in rows))
        axes.legend(
            handles=handles,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.22),
            ncols=6 if len(handles) <= 6 else 4,  # a row wider than the axes would squeeze them
            fontsize=9,
            columnspacing=1.2,
        )
        _heading(axes, title, said(model, sentences.labels(section)))

    drawn = _draw(f"decomposition-{index}", title, 4.4, paint)
    return replace(drawn, series=section.series, command=section.command)


BAR_WIDTH = 0.27
PENALTY: Any = {"facecolor": palette.T2S, "hatch": "////", "edgecolor": INK, "linewidth": 0}
GAIN: Any = {"facecolor": "none", "edgecolor": palette.T2O, "linestyle": ":", "linewidth": 1.2}
LOSS: Any = {"facecolor": palette.T2O, "hatch": "xxxx", "edgecolor": INK, "linewidth": 0}


def _bars(axes: Axes, place: int, why: Decomposition) -> None:
    """T1, T2s with its part above T1 hatched, T2o with its distance to T2s outlined or, where it is longer than T2s,
    hatched, and a bar for the ideal."""
    t2s, t2o = why.relative(why.t2s_s), why.relative(why.t2o_s)

    def bar(offset: float, bottom: float, top: float, **style: Any) -> None:
        axes.bar(place + offset * BAR_WIDTH, max(top - bottom, 0), 0.94 * BAR_WIDTH, bottom=bottom, **style)

    bar(-1, 0, 1, color=palette.T1)
    bar(0, 0, min(t2s, 1), color=palette.T2S)
    bar(0, 1, t2s, **PENALTY)
    bar(1, 0, min(t2o, t2s), color=palette.T2O)
    bar(1, t2o, t2s, **GAIN)
    if t2o > t2s:
        bar(1, t2s, t2o, **LOSS)
    if why.bounds is not None:
        ideal = why.relative(why.bounds.ideal_s)
        ends = [place + 0.5 * BAR_WIDTH, place + 1.5 * BAR_WIDTH]
        axes.plot(ends, [ideal, ideal], color=palette.IDEAL, linewidth=3, solid_capstyle="butt")


def _legend(*, lost: bool) -> list[Artist]:
    return [
        Patch(color=palette.T1, label="T1 unsplit"),
        Patch(color=palette.T2S, label="T2s split, serial"),
        Patch(label="split penalty", **PENALTY),
        Patch(color=palette.T2O, label="T2o split, overlapped"),
        Patch(label="overlap gain", **GAIN),
        *([Patch(label="negative gain", **LOSS)] if lost else []),
        Line2D([], [], color=palette.IDEAL, linewidth=3, label="ideal"),
    ]
