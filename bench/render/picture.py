"""A finished picture, as the documents that show it know it."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench.deciding.join import Series

PLOTS = "plots"
STANDALONE = (
    "<style>svg{color:#1c1f23}@media(prefers-color-scheme:dark){svg:root{color:#e6e8eb;background:#15181c}}</style>"
)
"""Inside a page the ink follows the page's text; a file of its own must bring it."""


@dataclass(frozen=True)
class Picture:
    """One plot."""

    name: str
    """File name without suffix."""
    title: str
    """For those who cannot see it."""
    svg: str
    """The SVG element."""
    series: Series | None = None
    """The one series it shows; None where it shows several."""
    folder: str = PLOTS
    """Relative to the report."""
    command: str = ""
    """Measures what it shows again; empty where the text beside it says so."""

    @property
    def path(self) -> str:
        """Relative to the report."""
        return f"{self.folder}/{self.name}.svg"

    @property
    def standalone(self) -> str:
        """The SVG as a file of its own."""
        head, rest = self.svg.split(">", 1)
        return f'<?xml version="1.0" encoding="utf-8"?>\n{head}>{STANDALONE}{rest}\n'


def showing(pictures: Iterable[Picture], series: Series | None) -> list[Picture]:
    """The plots of one series, or with None those that span several."""
    return [picture for picture in pictures if picture.folder == PLOTS and picture.series == series]
