"""``bench plan``: what a sweep would run on this machine, with what memory and for how long. Runs nothing."""

import json
import os
from dataclasses import replace

import click

from bench import cases, filters, planning, use_tbo
from bench import config as sweep_file
from bench.assumed_gpus import ASSUMED_GPUS
from bench.commands.options import device_option
from bench.errors import BenchError, Exit
from bench.render import plan as render
from bench.render import printing
from bench.running import probe


@click.command()
@click.argument("config", metavar="CONFIG")
@click.option("--filter", "terms", metavar="KEY=VALUE,...", help="Plan only these: tokens=1024,engine=streams.")
@device_option
@click.option("--gpu", type=click.Choice(list(ASSUMED_GPUS)), help="As if on this GPU, with every package at hand.")
@click.option("--nproc", type=click.IntRange(1), default=1, help="As if on so many GPUs like this, one a rank.")
@click.option("--json", "as_json", is_flag=True, help="Print data instead of a table.")
def command(
    config: str, terms: str | None, device: probe.DeviceChoice, gpu: str | None, nproc: int, as_json: bool
) -> int:
    """Say what the sweep file CONFIG would run here, how much memory and how long, and run nothing."""
    sweep, ignored = use_tbo.with_variants(sweep_file.load(config), os.environ)
    if gpu is not None and device == "cpu":
        raise BenchError(f"--gpu {gpu}: not together with --device cpu")
    elsewhere = None
    if gpu is not None:
        name = ASSUMED_GPUS[gpu].name
        elsewhere = f"as if on {name}: its published memory and SMs, an H100's rates; no machine was asked"
    for line in filter(None, (sweep_file.which(config), ignored, elsewhere)):
        click.echo(line, err=True)
    chosen = filters.select(cases.expand(sweep), terms)
    here = probe.probe(device).machine if gpu is None else ASSUMED_GPUS[gpu]
    machine = replace(here, ranks=nproc)
    plan = planning.make_plan(chosen, sweep.measure, machine)
    if as_json:
        click.echo(json.dumps(render.as_data(plan), indent=2))
    else:
        printing.show(render.as_table(plan))
    return int(Exit.DONE)
