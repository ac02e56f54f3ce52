"""Print JSON, or a rich renderable: as it is on a terminal, without padding or colour into a pipe or file."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from bench.printable import printable


class Harmless:
    """A renderable whose texts reach no terminal as control codes; rich's own colours stay."""

    def __init__(self, renderable: RenderableType) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def show_json(document: Any) -> None:
    """Print a JSON-able document, piece by piece: that of a large run takes as much memory again as one text."""
    for piece in json.JSONEncoder(indent=2, allow_nan=False).iterencode(document):
        sys.stdout.write(piece)
    click.echo()


def show(renderable: RenderableType) -> None:
    """Print to standard output; rich pads lines to the width, which only a terminal hides."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(Harmless(renderable))
        return
    with console.capture() as captured:
        console.print(Harmless(renderable))
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
