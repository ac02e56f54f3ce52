"""``bench export RUN``: a run as one CSV or Parquet table, a row per case, variant and pass."""

from pathlib import Path

import click

FORMATS = ("csv", "parquet")
"""As bench.export has them: importing it here would load numpy for ``--help``."""


@click.command(name="export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), default="csv", show_default=True, help="Parquet: an extra."
)
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="Where to; RUN/results.FORMAT if not given."
)
@click.option("--filter", "filter_text", metavar="KEY=VALUE,...", help="Only these cases and variants.")
def command(run: Path, kind: str, out: Path | None, filter_text: str | None) -> None:
    """Write the results of RUN, a run folder, as one table and print its path."""
    from bench import export, report
    from bench.run_folder import open_run

    folder = open_run(run)
    if torn := folder.torn_line():
        click.echo(torn, err=True)
    path = out or run / f"results.{kind}"
    form = next(form for form in export.FORMATS if form == kind)
    export.write(report.only(folder.trials(), filter_text), form, path)
    click.echo(path)
