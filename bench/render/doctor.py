"""``bench doctor`` on a terminal: one line a finding, remedies under them."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bench.doctor.findings import Finding, State

STYLES = {State.OK: "green", State.WARN: "bold yellow", State.MISSING: "bold red", State.UNKNOWN: "dim"}


def as_table(findings: Sequence[Finding]) -> RenderableType:
    """Name, state, what was found."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.name, Text(finding.state.value, style=STYLES[finding.state]), finding.said)
        if finding.remedy:
            table.add_row("", "", Text(finding.remedy, style="italic"))
    return table
