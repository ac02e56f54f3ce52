"""Every picture's style, and how one becomes SVG text. Ink follows the page's colour."""

import io
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from bench.printable import printable

WIDTH = 9.0
"""Inches; a page scales it."""
INK = "#010203"
"""A colour that nothing else has: replaced by currentColor, so that text and axes suit light and dark pages."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "moe-tbo-bench",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # a name may hold a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}


def svg(height: float, paint: Callable[[Figure], None]) -> str:
    """The SVG element of a figure of ``height`` inches: the same text for the same picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return printable(text[text.index("<svg") :].strip().replace(INK, "currentColor"))  # XML allows no control codes
