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
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the raw reports; else RUN/timelines/<case>-<tool>, or profiles/<case>-<tool>.",
)
def command(config: Path, prefix: str | None, terms: str | None, tool: Tool, out: Path | None) -> int:
    """Profile all variants of one case of CONFIG, a sweep file or a run folder: TBO off beside TBO on.

    Each variant agrees with the oracle before it is profiled. Needs a CUDA GPU. Leaves the raw reports, analysis.json
    and a picture; bench report RUN shows what lies under RUN/timelines.
    """
    import os
    import shlex

    from bench import filters, use_tbo
    from bench.cases import Case, expand
    from bench.config import load
    from bench.errors import Exit
    from bench.profiling import choose, drive
    from bench.profiling.kept import TIMELINES, keep
    from bench.profiling.request import Request
    from bench.render import analysis as render
    from bench.render import timeline_section
    from bench.render.files import write_picture
    from bench.render.printing import show
    from bench.running.probe import probe

    path = choose.config_of(config)
    sweep, _ = use_tbo.with_variants(load(path), os.environ)
    case: Case = choose.one(filters.select(expand(sweep), terms), prefix)
    case = choose.runnable(case, probe("cuda").machine)
    profiles = config / TIMELINES if config.is_dir() else Path("profiles")
    folder = drive.folder_for(out or profiles / f"{case.case_id}-{tool}")
    request = Request(case, tool, str(folder))
    again = drive.repeat(config, request, out)
    kept = keep(request, drive.profile(request), again)
    for one in kept.profiled:
        click.echo(f"{one.variant.role} {one.variant.label}")
        show(render.as_table(one.analysis))
        click.echo()
    click.echo(timeline_section.about(kept))
    for picture in timeline_section.pictures([kept]):
        click.echo(f"Wrote:  {shlex.quote(str(write_picture(picture, folder)))}")
    click.echo(f"Repeat: {again}")
    click.echo(f"Raw:    {shlex.quote(request.folder)}")
    return int(Exit.DONE)
