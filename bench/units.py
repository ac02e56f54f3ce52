"""Quantities: text with a unit to SI, and SI to text for people. Nothing here knows what a quantity is for."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Dimension:
    """What a quantity measures: its name in messages, an example, and its units as multiples of the SI one."""

    name: str
    example: str
    units: Mapping[str, Decimal]
    least: float
    most: float
    """SI; the range of what can be meant, 0 apart: nothing computed from a number in it overflows or vanishes."""


TIME = Dimension(
    "a time",
    "15 us",
    {"ns": Decimal("1e-9"), "us": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1), "min": Decimal(60)},
    least=1e-12,
    most=1e7,
)
RATE = Dimension(
    "a rate",
    "150 GB/s",
    {
        "B/s": Decimal(1),
        "kB/s": Decimal(10**3),
        "MB/s": Decimal(10**6),
        "GB/s": Decimal(10**9),
        "TB/s": Decimal(10**12),
    },
    least=1.0,
    most=1e18,
)
FRACTION = Dimension("a fraction", "0.2 %", {"%": Decimal("0.01"), "ratio": Decimal(1)}, least=1e-12, most=1e3)

# Three digits of exponent hold every float; more would only let Decimal overflow.
_QUANTITY = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(?P<unit>\S*)", re.ASCII)


def parse(text: str, dimension: Dimension) -> float:
    """A quantity in SI, correctly rounded: ``parse("15 us", TIME) == 15e-6``.

    Raises:
        ValueError: no number (NaN and infinities are none), a negative or overflowing one, a missing or unknown unit;
            the message says what was expected.
    """
    units = ", ".join(dimension.units)
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected {dimension.name} with its unit, such as {dimension.example} (units: {units})")
    unit = match["unit"]
    if unit not in dimension.units:
        problem = f"unknown unit {unit}" if unit else "no unit"
        raise ValueError(f"{problem}, expected {dimension.name} such as {dimension.example} (units: {units})")
    value = float(Decimal(match["number"]) * dimension.units[unit])
    if value < 0 or not math.isfinite(value):
        raise ValueError(f"expected {dimension.name} that is finite and not negative")
    return value


def _three_digits(value: float) -> str:
    """Three significant digits without an exponent: 2.22, 22.2, 222, 2,220."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.2e}")))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _scaled(value: float, steps: list[tuple[float, str]]) -> str:
    """``value`` in the largest unit of ``steps`` (ascending) of which it is at least one, after rounding."""
    rounded = abs(float(f"{value:.2e}"))
    size, unit = next(((size, unit) for size, unit in reversed(steps) if rounded >= size), steps[0])
    return f"{_three_digits(value / size)} {unit}"


def format_seconds(seconds: float) -> str:
    """Three significant digits: ``15 us``, ``2.22 ms``, ``9.5 min``."""
    steps = [(1e-9, "ns"), (1e-6, "us"), (1e-3, "ms"), (1.0, "s")]
    if abs(seconds) >= 120:  # "90 s" reads better than "1.5 min"
        steps.append((60.0, "min"))
    if abs(seconds) >= 7200:
        steps.append((3600.0, "h"))
    return _scaled(seconds, steps)


def format_bytes(num_bytes: float) -> str:
    """Binary units, three significant digits: ``3.06 GiB`` (GiB = 2**30)."""
    return _scaled(num_bytes, [(1.0, "B"), (2.0**10, "KiB"), (2.0**20, "MiB"), (2.0**30, "GiB"), (2.0**40, "TiB")])


def format_rate(bytes_per_s: float) -> str:
    """Decimal units, three significant digits: ``150 GB/s`` (GB = 1e9)."""
    return _scaled(bytes_per_s, [(1.0, "B/s"), (1e3, "kB/s"), (1e6, "MB/s"), (1e9, "GB/s"), (1e12, "TB/s")])


def format_percent(fraction: float, *, signed: bool = False) -> str:
    """Three significant digits: ``0.2 %``; with ``signed`` a plus too: ``+12.3 %``."""
    sign = "+" if signed and fraction > 0 else ""
    return f"{sign}{_three_digits(100 * fraction)} %"


def format_count(count: int) -> str:
    """Thousands apart: ``8,192``."""
    return f"{count:,}"
