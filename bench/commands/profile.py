"""``bench profile``: run one case of a sweep under torch.profiler or Nsight Systems, and say what it shows."""

from pathlib import Path
from typing import get_args

import click

from bench.profiling.request import Tool


@click.command()
@click.argument("config", metavar="CONFIG|RUN", type=click.Path(path_type=Path))
@click.option("--case", "prefix", metavar="ID", help="The case, by the beginning of its id; not needed with one case.")
@click.option("--filter", "terms", metavar="KEY=VALUE,...", help="Only these: tokens=1024,engine=streams.")
@click.option("--tool", type=click.Choice(get_args(Tool)), default="torch", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the raw reports, profiles/<case>-<tool>.")
def command(config: Path, prefix: str | None, terms: str | None, tool: Tool, out: Path | None) -> int:
    """Profile all variants of one case of CONFIG, a sweep file or a run folder: TBO off beside TBO on.

    Each variant agrees with the oracle before it is profiled. Needs a CUDA GPU.
    """
    import os
    import shlex

    from bench import filters, use_tbo
    from bench.cases import Case, expand
    from bench.config import load
    from bench.errors import Exit
    from bench.profiling import choose, drive
    from bench.profiling.request import Request
    from bench.render import analysis as render
    from bench.render.printing import show
    from bench.running.probe import probe
    from bench.timeline.analysis import analyse
    from bench.timeline.read import read

    path = choose.config_of(config)
    sweep, _ = use_tbo.with_variants(load(path), os.environ)
    case: Case = choose.one(filters.select(expand(sweep), terms), prefix)
    case = choose.runnable(case, probe("cuda").machine)
    request = Request(case, tool, str(drive.folder_for(out, case.case_id, tool)))
    for file in drive.profile(request):
        for run in analyse(read(file)):
            show(render.as_table(run))
    click.echo(f"Repeat: {drive.repeat(config, case.case_id, request)}")
    click.echo(f"Raw:    {shlex.quote(request.folder)}")
    return int(Exit.DONE)
