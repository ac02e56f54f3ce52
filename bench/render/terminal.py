"""The end of a sweep and ``bench compare`` on a terminal: rich renderables, readable at 80 columns."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, Protocol, TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from bench import units
from bench.deciding.compare import Verdict
from bench.render import alone, backends, missing, noise, sentences, shortfall, tables, words, worth
from bench.render.fitting import Fitting
from bench.report_model import ReportModel

STYLES = {
    Verdict.FASTER: "bold green",
    Verdict.SLOWER: "bold red",
    Verdict.SAME: "bold cyan",
    Verdict.UNDECIDED: "bold yellow",
}
STYLE_OF = {verdict.value: style for verdict, style in STYLES.items()}
FOLDED = {"efficiency": "effi-\nciency"}
"""Headers wider than their cells, hyphenated so that a table fits 80 columns."""
MOST_ROWS = 1000
"""Of all tables together: rows of a run of thousands of cases are for the report and ``--json``."""
MOST_LISTED = 12
"""Failures and skips shown one by one; the report lists all."""


def summary(model: ReportModel) -> RenderableType:
    """The headline, one table a series, then noise, rule, failures and skips."""
    parts: list[RenderableType] = [
        Text(sentences.headline(model), style="bold"),
        *(Text(line, style="bold yellow") for line in missing.gaps(model)),
        Text(sentences.machine(model), style="dim"),
    ]
    if model.question:
        parts.append(Text(f"Question: {model.question}", style="italic"))
    if not model.on_cpu:  # the banner is the only answer there
        others = [section for section in model.sections if section is not model.headline]
        parts += [Padding(Text(sentences.answer(section, model)), (0, 0, 0, 2)) for section in others]
    parts += [Text(line) for line in worth.lines(model)]
    shown = within(model.sections)
    for section in shown:
        parts += ["", Text(words.series(section.series), style="bold"), *table(tables.decision(section))]
    parts += left_out(len(model.sections) - len(shown), "the report and --json have all")
    for cells in (*within(alone.tables(model)), *within(backends.tables(model))):
        parts += ["", Text(cells.title, style="bold"), *table(cells)]
    how = (sentences.rule(model), *noise.floor(model), *noise.off_against_off(model), missing.checks(model))
    parts += ["", *map(Text, how)]
    parts += listed("From the ideal to T2o, by timelines", shortfall.lines(model), "")
    parts += listed(f"Failed: {len(model.failures)}", missing.not_timed_together(model.failures), "red")
    parts += listed(f"Skipped: {len(model.skips)}", missing.not_timed_together(model.skips), "dim")
    return Group(*parts)


class HasRows(Protocol):
    @property
    def rows(self) -> Sequence[Any]: ...


S = TypeVar("S", bound=HasRows)


def within(sections: Sequence[S]) -> Sequence[S]:
    """As many as nobody minds scrolling through: MOST_ROWS rows, one section at least."""
    rows = accumulate(len(section.rows) for section in sections)
    return sections[: max(1, sum(so_far <= MOST_ROWS for so_far in rows))]


def left_out(series: int, where: str) -> list[RenderableType]:
    """A line that says how many series are not shown; nothing if all are."""
    return ["", Text(f"and {units.format_count(series)} more series: {where}", style="dim")] if series else []


def table(cells: tables.Table) -> list[RenderableType]:
    """A table with its notes below."""
    headers = [FOLDED.get(header, header.replace(" ", "\n")) for header in cells.headers]
    widths = [max(map(_width, column)) for column in zip(headers, *cells.rows, strict=True)]  # rich finds them slowly

    def draw(columns: int) -> RichTable:
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, header_style="bold")
        for header, width in zip(headers[:columns], widths, strict=False):
            left = header == "verdict"
            # Only headers may fold: a number broken over two lines is misread.
            drawn.add_column(header, justify="left" if left else "right", no_wrap=True, width=width)
        for row in cells.rows:
            drawn.add_row(*map(Cell, row[:columns]))
        return drawn

    notes = [Padding(Text(note, style="" if i == 0 else "dim"), (0, 0, 0, 2)) for i, note in enumerate(cells.notes)]
    return [Fitting(draw, cells.headers), *notes]


def _width(cell: str) -> int:
    """Of its longest line, in columns."""
    return max(map(cell_len, cell.splitlines()), default=0)


class Cell:
    """One line of text in a table: as rich's own, in half its time."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType | Segment]:
        style = STYLE_OF.get(self._text, "")
        missing = options.max_width - cell_len(self._text)
        if missing < 0 or "\n" in self._text:
            yield Text(self._text, style=style)
            return
        left = options.justify == "left"
        padded = self._text + " " * missing if left else " " * missing + self._text
        yield Segment(padded, console.get_style(style) if style else None)


def listed(title: str, lines: list[str], style: str) -> list[RenderableType]:
    """A title over its lines, MOST_LISTED at most; nothing without lines."""
    if not lines:
        return []
    shown = [Padding(Text(line, style=style), (0, 0, 0, 2)) for line in lines[:MOST_LISTED]]
    more = len(lines) - len(shown)
    rest = [Padding(Text(f"and {more} more lines, all in the report", style=style), (0, 0, 0, 2))] if more else []
    return ["", Text(title, style="bold"), *shown, *rest]
