"""Options that several verbs share."""

from typing import get_args

import click

from bench.running.probe import DeviceChoice

device_option = click.option(
    "--device",
    type=click.Choice(get_args(DeviceChoice)),
    default="auto",
    show_default=True,
    help="auto takes a GPU where there is one.",
)
