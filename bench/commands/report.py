"""``bench report RUN``: write report.html, report.md and plots/ again from a run folder's results."""

from pathlib import Path

import click


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
def command(run: Path) -> None:
    """Write the report of RUN, a run folder, into it and print the paths."""
    from bench import report
    from bench.render import files
    from bench.run_folder import open_run

    folder = open_run(run)
    if torn := folder.torn_line():
        click.echo(torn, err=True)
    for path in files.write(report.build(folder), run):
        click.echo(path)
