"""Timelines as pictures: TBO off above on at one time scale, a lane for each stream and micro-batch."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench import units
from bench.render import drawing, palette
from bench.render.drawing import INK
from bench.timeline.model import UNKNOWN
from bench.timeline.strip import Lane, Strip
from moe_impl.stages import Stage

LANE, EXPOSED, LINE, GAP = 1.0, 0.5, 0.7, 0.3
"""Heights, in lanes: of a lane's bars, of the strip under them, of a line of a run's title, between runs."""
TITLE_WIDTH = 122
"""Letters of a title that fit above the axes."""
INCHES_PER_LANE = 0.29
AXES_POINTS = 530
"""About how wide the axes are; decides which bars have room for their stage's name."""
LABEL_SIZE = 6.5
POINTS_PER_LETTER = 0.62 * LABEL_SIZE
LEGEND_COLUMNS = 7
NO_STAGE: Any = {"facecolor": palette.NEUTRAL, "linewidth": 0}
HATCHED: Any = {"facecolor": "none", "edgecolor": INK, "hatch": "////////", "linewidth": 0.15}
IN_MS = 1e-6


@dataclass(frozen=True)
class Shown:
    """One run in the picture."""

    name: str
    """``T2o streams x2 triton``."""
    strip: Strip

    @property
    def title(self) -> list[str]:
        """Its lines."""
        return textwrap.wrap(f"{self.name}: {about(self.strip)}", TITLE_WIDTH)

    @property
    def height(self) -> float:
        """In lanes."""
        return len(self.title) * LINE + len(self.strip.lanes) * LANE + EXPOSED + GAP


def svg(title: str, runs: Sequence[Shown]) -> str:
    """The SVG element: the runs from top to bottom."""
    handles = _legend(runs)
    heading = textwrap.wrap(title, TITLE_WIDTH)
    rows = sum(run.height for run in runs)
    height = 0.8 + 0.2 * len(heading) + INCHES_PER_LANE * rows + 0.2 * math.ceil(len(handles) / LEGEND_COLUMNS)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        _paint(axes, runs)
        axes.set_title("\n".join(heading), fontsize=9.5)
        figure.legend(handles=handles, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=8)

    return drawing.svg(height, paint)


def about(strip: Strip) -> str:
    """``72.4 ms an iteration, 68.2 % of 24.3 ms communication hidden, 7.72 ms exposed; median of 5``."""
    exposed, comm = strip.exposed_ns, strip.comm_ns
    what = "in all (no range names iterations)" if strip.told == "untold" else "an iteration"
    said = f"{_seconds(strip.span_ns)} {what}"
    if comm:
        hidden = units.format_percent((comm - exposed) / comm)
        said += f", {hidden} of {_seconds(comm)} communication hidden, {_seconds(exposed)} exposed"
    if strip.iterations > 1:
        said += f"; median of {strip.iterations}"
    if strip.shown_ns < strip.span_ns:
        said += f"; its first {_seconds(strip.shown_ns)}"
        said += f", {strip.layers_shown} of {strip.layers} layers" if strip.layers else ""
    return said


def _seconds(nanoseconds: int) -> str:
    return units.format_seconds(nanoseconds * 1e-9)


def _paint(axes: Axes, runs: Sequence[Shown]) -> None:
    longest = max(1, *(run.strip.shown_ns for run in runs))
    ticks: list[tuple[float, str]] = []
    top = 0.0
    for run in runs:
        for line in run.title:
            axes.text(0, top + 0.5 * LINE, line, fontsize=8, va="center")
            top += LINE
        for lane in run.strip.lanes:
            _bars(axes, lane, top, longest)
            ticks.append((top + LANE / 2, _lane_name(lane)))
            top += LANE
        pieces = [(start * IN_MS, (end - start) * IN_MS) for start, end in run.strip.exposed]
        axes.broken_barh(pieces, (top + 0.08, EXPOSED - 0.08), **HATCHED)
        ticks.append((top + EXPOSED / 2, "exposed comm."))
        top += EXPOSED + GAP
    axes.set_xlim(0, longest * IN_MS * 1.002)
    axes.set_ylim(top, 0)
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("time from the iteration's first start, ms")
    axes.grid(axis="x", color=INK, alpha=0.12)
    axes.set_axisbelow(True)


def _lane_name(lane: Lane) -> str:
    return f"stream {lane.stream}" + (f", ubatch {lane.ubatch}" if lane.ubatch != UNKNOWN else "")


def _bars(axes: Axes, lane: Lane, top: float, longest: int) -> None:
    place = (top + 0.06, LANE - 0.12)
    for stage in dict.fromkeys(bar.stage for bar in lane.bars):
        pieces = [
            (bar.start_ns * IN_MS, (bar.end_ns - bar.start_ns) * IN_MS) for bar in lane.bars if bar.stage == stage
        ]
        axes.broken_barh(pieces, place, **_style(stage))
    for bar in lane.bars:
        room = (bar.end_ns - bar.start_ns) / longest * AXES_POINTS
        if bar.stage in palette.STAGES and room > len(bar.stage) * POINTS_PER_LETTER:
            axes.text(
                (bar.start_ns + bar.end_ns) / 2 * IN_MS,
                top + LANE / 2,
                bar.stage,
                fontsize=LABEL_SIZE,
                color=palette.on(palette.STAGES[bar.stage]),
                ha="center",
                va="center",
            )


def _style(stage: str) -> dict[str, Any]:
    return {"facecolor": palette.STAGES[stage], "linewidth": 0} if stage in palette.STAGES else NO_STAGE


def _legend(runs: Sequence[Shown]) -> list[Artist]:
    there = {bar.stage for run in runs for lane in run.strip.lanes for bar in lane.bars}
    known = [str(stage) for stage in Stage if stage in there]
    return [
        *(Patch(label=stage, **_style(stage)) for stage in known),
        *([Patch(label="no known stage", **NO_STAGE)] if there - set(known) else []),
        Patch(label="exposed communication", **HATCHED),
    ]
