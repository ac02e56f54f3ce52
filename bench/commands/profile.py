"""``bench profile``: run one case of a sweep under torch.profiler or an Nsight tool, and say what it shows."""

from pathlib import Path
from typing import get_args

import click

from bench.profiling.request import Request, Tool


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

    torch and nsys record when what ran: a timeline. ncu runs the compute kernels of T1 and T2s one by one, and tells
    how well each uses the GPU; its table is kept in kernels.json.
    """
    import os
    import shlex

    from bench import filters, use_tbo
    from bench.cases import Case, expand
    from bench.config import load
    from bench.errors import Exit
    from bench.profiling import choose, drive, ncu
    from bench.profiling.kept import TIMELINES
    from bench.running.interrupts import leave, on_interrupt
    from bench.running.probe import probe

    with on_interrupt(leave):  # what it started is killed on the way out
        path = choose.config_of(config)
        sweep, _ = use_tbo.with_variants(load(path), os.environ)
        case: Case = choose.one(filters.select(expand(sweep), terms), prefix)
        case = choose.runnable(ncu.visible(case) if tool == "ncu" else case, probe("cuda").machine)
        profiles = config / TIMELINES if config.is_dir() else Path("profiles")
        folder = drive.folder_for(out or profiles / f"{case.case_id}-{tool}")
        request = Request(case, tool, str(folder), experts_choice=choose.experts_choice(config, case))
        again = drive.repeat(config, request, out)
        if tool == "ncu":
            _show_kernels(request, again)
        else:
            _show_timelines(request, again)
    click.echo(f"Repeat: {again}")
    click.echo(f"Raw:    {shlex.quote(request.folder)}")
    return int(Exit.DONE)


def _show_timelines(request: Request, again: str) -> None:
    import shlex

    from bench.profiling import drive
    from bench.profiling.kept import keep
    from bench.render import analysis as render
    from bench.render import timeline_section
    from bench.render.files import write_picture
    from bench.render.printing import show

    kept = keep(request, drive.profile(request), again)
    for one in kept.profiled:
        click.echo(f"{one.variant.role} {one.variant.label}")
        show(render.as_table(one.analysis))
        click.echo()
    click.echo(timeline_section.about(kept))
    for picture in timeline_section.pictures([kept]):
        click.echo(f"Wrote:  {shlex.quote(str(write_picture(picture, Path(request.folder))))}")


def _show_kernels(request: Request, again: str) -> None:
    from rich.console import Group
    from rich.text import Text

    from bench.profiling import ncu
    from bench.render import kernel_section, terminal
    from bench.render.printing import show

    profile = ncu.profile(request, again)
    for table in kernel_section.tables(profile):
        show(Group(Text(table.title, style="bold"), *terminal.table(table)))
        click.echo()
    click.echo(kernel_section.about(profile))
