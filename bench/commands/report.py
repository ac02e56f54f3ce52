"""``bench report RUN``: write a run's report again; ``bench report A B``: two runs on the same axes."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.no_collecting import no_collecting

if TYPE_CHECKING:
    from bench.report_model import ReportModel


@click.command(name="report")
@click.argument("run", metavar="RUN|A", type=click.Path(path_type=Path))
@click.argument("other", metavar="[B]", required=False, type=click.Path(path_type=Path))
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help="Folder for the report of two runs.")
@no_collecting()
def command(run: Path, other: Path | None, out: Path | None) -> None:
    """Write the report of RUN, a run folder, into it and print the paths.

    With two run folders, A and B: put TBO's speed-up in both on the same axes, in DIR; the runs are left alone.
    """
    from bench import beside
    from bench.errors import BenchError
    from bench.render import beside as render_beside
    from bench.render import files

    if other is None:
        if out is not None:
            raise BenchError(f"--out: is for the report of two runs, found one ({run}, which gets its own report)")
        written = files.write(_model(run), run)
    else:
        if out is None:
            raise BenchError("--out is missing: the report of two runs goes to a folder of its own")
        if out.resolve() in (run.resolve(), other.resolve()):
            raise BenchError(f"--out: {out} is one of the two runs, whose own report would be lost")
        written = render_beside.write(beside.build([_model(run), _model(other)]), out)
    for path in written:
        click.echo(path)


def _model(run: Path) -> "ReportModel":
    from bench import report
    from bench.run_folder import open_run

    folder = open_run(run)
    if torn := folder.torn_line():
        click.echo(torn, err=True)
    return report.build(folder)
