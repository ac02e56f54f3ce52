"""Print a rich renderable: as it is on a terminal, without padding or colour into a pipe or file."""

import click
from rich.console import Console, RenderableType


def show(renderable: RenderableType) -> None:
    """Print to standard output; rich pads lines to the width, which only a terminal hides."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(renderable)
        return
    with console.capture() as captured:
        console.print(renderable)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
