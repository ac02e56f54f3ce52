"""``bench doctor``: what this machine can measure, how well, and what is missing for more."""

import json
from dataclasses import asdict

import click

from bench.commands.options import device_option
from bench.doctor import examine, tools
from bench.errors import Exit
from bench.render import doctor as render
from bench.render import printing
from bench.running.probe import DeviceChoice


@click.command()
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print data instead of a table.")
def command(device: DeviceChoice, as_json: bool) -> int:
    """Examine this machine: GPU, versions, tools, bandwidths, the timer and the noise floor. Takes under a minute.

    What is missing is an answer, not an error: exit code 0.
    """
    findings = [*examine.on_device(device), *tools.tools()]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        printing.show(render.as_table(findings))
    return int(Exit.DONE)
