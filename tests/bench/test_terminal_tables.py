"""Tables on a terminal: drawn sooner than rich's own cells and columns, and the same to the last byte."""

import io
from typing import Any
from unittest.mock import patch

import pytest
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.render import terminal
from bench.render.tables import Table
from bench.render.terminal import STYLE_OF

CELLS = Table(
    "TBO's speed-up",
    ("tokens", "BASE speed-up", "efficiency", "change", "verdict"),
    (
        ("1", "1.2x", "—", "0.9x [0.8, 1.0]", "FASTER"),
        ("1,024", "11.25x", "98 %", "", "UNDECIDED"),
        ("16,384", "日本", "a\nb", "one line, then\nanother", "SAME"),
    ),
    ("A note.", "A second."),
)


def printed(cells: Table, width: int, *, on_terminal: bool) -> str:
    colours = "standard" if on_terminal else None
    console = Console(file=io.StringIO(), width=width, force_terminal=on_terminal, color_system=colours)
    for part in terminal.table(cells):
        console.print(part)
    return console.file.getvalue()


def by_rich(cells: Table, width: int, *, on_terminal: bool) -> str:
    """The same where rich measures columns and lays out texts."""
    add_column = RichTable.add_column

    def of_any_width(table: RichTable, *args: Any, width: int, **kwargs: Any) -> None:
        add_column(table, *args, **kwargs)

    with (
        patch.object(RichTable, "add_column", of_any_width),
        patch.object(terminal, "Cell", lambda text: Text(text, style=STYLE_OF.get(text, ""))),
    ):
        return printed(cells, width, on_terminal=on_terminal)


@pytest.mark.parametrize("on_terminal", [True, False])
@pytest.mark.parametrize("width", [80, 52, 48, 20, 10, 6])
def test_a_table_is_as_rich_draws_it(width: int, on_terminal: bool) -> None:
    found = printed(CELLS, width, on_terminal=on_terminal)
    assert found == by_rich(CELLS, width, on_terminal=on_terminal)
    assert "16,384" in found
    if width == 80:
        assert ("\x1b[1;32mFASTER   \x1b[0m" in found) == on_terminal


def test_a_table_without_rows() -> None:
    empty = Table(CELLS.title, CELLS.headers, (), ())
    assert printed(empty, 80, on_terminal=True) == by_rich(empty, 80, on_terminal=True)
