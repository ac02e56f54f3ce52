"""``bench calibrate RUN``: the link of a run as a table that one GPU can stand in for it with."""

from pathlib import Path

import click


@click.command(name="calibrate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", metavar="FILE", type=click.Path(path_type=Path), help="Where to; RUN/link_table.csv if not given."
)
@click.option("--filter", "filter_text", metavar="KEY=VALUE,...", help="Only these cases and variants.")
def command(run: Path, out: Path | None, filter_text: str | None) -> None:
    """Write what dispatch and combine of RUN, a run folder, took as a link table, and say its alpha and bandwidth.

    RUN must be of a link whose rows really travel: collective (bench sweep --nproc) or host_link.
    """
    from bench import report, transfers, units
    from bench.errors import BenchError
    from bench.run_folder import open_run

    folder = open_run(run)
    if torn := folder.torn_line():
        click.echo(torn, err=True)
    found = transfers.transfers(report.only(folder.trials(), filter_text))
    times = transfers.fitted(found)
    path = out or run / "link_table.csv"
    try:
        path.write_text(transfers.table(found))
    except OSError as error:
        raise BenchError(f"--out: {path}: {error.strerror}") from error
    for time, residual in times:
        alpha, rate = units.format_seconds(time.alpha_s), units.format_rate(time.bandwidth_bytes_per_s)
        click.echo(
            f"{time.direction} of {time.dtype} rows: alpha {alpha}, {rate}, residual up to "
            f"{units.format_percent(residual)}"
        )
    if found.left_out:
        click.echo(f"left out: {found.left_out} measurements whose stage pass was perturbed")
    click.echo(f"wrote {path}: {len(found.transfers)} sizes of {found.cases} cases")
    click.echo(f"use it: link: {{table: {{file: {path.name}, comm_sms: N}}}}, N the CTAs that the link's kernels take")
