"""One colour for one thing, in every picture. After Okabe and Ito's palette, told apart by colour-blind readers."""

from collections.abc import Sequence

T1 = "#0072B2"
T2S = "#E69F00"
T2O = "#009E73"
IDEAL = "#CC79A7"
NEUTRAL = "#8C8C8C"
STAGES = {
    "attention": "#6D557B",
    "route": "#AEEAD0",
    "quantize": "#2374E3",
    "dispatch": "#B2182B",
    "shared": "#637F58",
    "permute": "#E2E35F",
    "gemm1": "#2166AC",
    "silu_mul": "#B5829D",
    "gemm2": "#92C5DE",
    "reduce": "#929704",
    "combine": "#F4A582",
    "merge": "#35B5F9",
}
"""One a stage: communication is red, the GEMMs are blue. Searched for the largest smallest distance between any two as
readers without red or green cones see them (CIELAB, over 20)."""
LINES = ("#D55E00", "#56B4E9", "#B59B00", "#9A86C4")
"""One a precision; none is a colour of a T."""
MARKERS = "osD^vP"
DASHES = ("-", "--", ":", "-.")
"""One marker and one dash a variant, so that lines differ without colour."""


def pick(choices: Sequence[str], index: int) -> str:
    """The choice at ``index``, from the start again beyond the last."""
    return choices[index % len(choices)]


def on(colour: str) -> str:
    """Black or white, whichever reads better on a colour (WCAG's relative luminance)."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#000000" if luminance > 0.18 else "#FFFFFF"
