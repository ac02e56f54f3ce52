"""One colour for one thing, in every picture. After Okabe and Ito's palette, told apart by colour-blind readers."""

from collections.abc import Sequence

T1 = "#0072B2"
T2S = "#E69F00"
T2O = "#009E73"
IDEAL = "#CC79A7"
BREAK_EVEN = "#8C8C8C"
LINES = ("#D55E00", "#56B4E9", "#B59B00", "#9A86C4")
"""One a precision; none is a colour of a T."""
MARKERS = "osD^vP"
DASHES = ("-", "--", ":", "-.")
"""One marker and one dash a variant, so that lines differ without colour."""


def pick(choices: Sequence[str], index: int) -> str:
    """The choice at ``index``, from the start again beyond the last."""
    return choices[index % len(choices)]
