"""A table that never cuts a cell: on a narrow terminal whole columns go, from the right, and a line says which."""

from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

UNLIMITED = 10_000
"""Columns: where a table has its natural width."""


class Fitting:
    """As many columns as fit.

    Args:
        draw: makes the table of the first n columns.
        headers: of all columns; the first is always shown.
        say: name the columns that do not fit; of several tables of equal widths one does.
    """

    def __init__(self, draw: Callable[[int], Table], headers: tuple[str, ...], *, say: bool = True) -> None:
        self._draw, self._headers, self._say = draw, headers, say

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        wide = options.update(width=UNLIMITED)
        shown = len(self._headers)
        while shown > 1 and Measurement.get(console, wide, self._draw(shown)).maximum > options.max_width:
            shown -= 1
        yield self._draw(shown)
        if self._say and shown < len(self._headers):
            yield Text(f"Too narrow for: {', '.join(self._headers[shown:])}.", style="dim")
