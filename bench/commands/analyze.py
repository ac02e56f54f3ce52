"""``bench analyze FILE``: is it overlapping at all? Metrics of a profile, ours or a stranger's."""

import json
from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--map", "rules", type=click.Path(path_type=Path), help="Rules (YAML) for reading somebody else's trace.")
@click.option(
    "--perfetto",
    type=click.Path(path_type=Path),
    metavar="OUT.json",
    help="Write a trace for ui.perfetto.dev, too: a track a stream and micro-batch; .json.gz packs it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print data instead of tables.")
def command(file: Path, rules: Path | None, perfetto: Path | None, as_json: bool) -> int:
    """Say how much communication FILE hides, and what the GPU waited for.

    FILE is an Nsight Systems SQLite export (nsys export --type sqlite) or a torch.profiler trace (.json, .json.gz).
    """
    from bench.errors import BenchError, Exit
    from bench.render import analysis as render
    from bench.render.printing import show
    from bench.timeline import perfetto as chrome_trace
    from bench.timeline.analysis import measure, runs_of
    from bench.timeline.attribute import attribute
    from bench.timeline.read import read
    from bench.timeline.rules_file import KNOWN, load_rules

    if perfetto is not None and perfetto.resolve() == file.resolve():
        raise BenchError(f"--perfetto: {perfetto} is the profile itself")
    runs = runs_of(attribute(read(file), load_rules(rules or KNOWN)))
    if perfetto is not None:
        chrome_trace.write(runs, perfetto)
        what = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
        click.echo(f"wrote {perfetto}: {what}, a track a stream and micro-batch; open it in ui.perfetto.dev", err=True)
    found = [measure(name, run) for name, run in runs]
    if as_json:
        click.echo(json.dumps([render.as_data(run) for run in found], indent=2))
    else:
        for place, run in enumerate(found):
            if place:
                click.echo()
            show(render.as_table(run))
    return int(Exit.DONE)
