"""``bench compare RUN``: TBO on against off for every case of a run folder. Undecided is an answer: exit 0."""

from pathlib import Path

import click


@click.command(name="compare")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--filter", "filter_text", metavar="KEY=VALUE,...", help="Only these cases and variants.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of tables.")
def command(run: Path, filter_text: str | None, as_json: bool) -> None:
    """Compare each variant of RUN, a run folder, with its own T1 (TBO off)."""
    import json

    from bench import report
    from bench.render.document import document
    from bench.render.printing import show
    from bench.render.terminal import summary
    from bench.run_folder import open_run

    folder = open_run(run)
    if torn := folder.torn_line():
        click.echo(torn, err=True)
    model = report.build(folder, report.only(folder.trials(), filter_text))
    if as_json:
        click.echo(json.dumps(document(model), indent=2, allow_nan=False))
    else:
        show(summary(model))
