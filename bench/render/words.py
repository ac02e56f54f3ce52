"""Names and quantities as every output writes them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any

from bench import units
from bench.deciding.compare import Comparison
from bench.deciding.join import Series
from bench.identity import default
from bench.report_model import Row
from moe_impl.options import Link, Workload
from moe_impl.support import BF16_TRAFFIC, CPU_ONLY

UNKNOWN = "n/a"
MOST = 10.0
"""Ratios and fractions beyond this come from two noisy passes; their digits mean nothing."""
LIMITS = {
    CPU_ONLY: "on a CPU the stages run one after the other",
    BF16_TRAFFIC: "experts torch decodes NVFP4 weights to bf16 beforehand, so it moves the bytes of bf16 weights",
}
"""Limit as it is stored -> what it means."""
LISTED = 3
"""Token counts that a sentence lists one by one though they are all that were measured."""
IN_THE_TITLE = frozenset({"model", "ep_size", "layers", "tokens", "precision"})


def limit(text: str) -> str:
    """Why a row makes no claim, spelled out where the stored name is short."""
    return LIMITS.get(text, text)


def count(number: float | int) -> str:
    """A token count without a thousands separator, as it is written in a sweep file."""
    return f"{number:.0f}"


def about(number: float) -> str:
    """Two significant digits: ``2300``."""
    return count(float(f"{number:.2g}"))


def counts(numbers: tuple[int, ...]) -> str:
    """``128, 256 and 512``."""
    return joined([count(number) for number in numbers])


def counts_of(some: Sequence[int], measured: Sequence[int]) -> str:
    """``128 and 256``; ``all 7`` where that is every count measured, and a list would be long."""
    return f"all {len(some)}" if len(some) == len(measured) > LISTED else counts(tuple(some))


def joined(texts: Sequence[str]) -> str:
    """``a, b and c``."""
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def percent(fraction: float | None) -> str:
    """``0.2 %``; beyond MOST a bound, for nobody compares such digits."""
    if fraction is None:
        return UNKNOWN
    return units.format_percent(fraction) if fraction < MOST else f"over {units.format_percent(MOST)}"


def ratio(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def factors(values: Collection[float]) -> str:
    """``1.8x``, or the range ``1.8x to 2.1x`` of several."""
    ends = dict.fromkeys(f"{value:.2g}x" for value in (min(values), max(values)))
    return " to ".join(ends)


def size(num_bytes: int | None) -> str:
    return UNKNOWN if num_bytes is None else units.format_bytes(num_bytes)


def speedup(comparison: Comparison) -> str:
    """``1.210x [1.203, 1.217]``."""
    return factor(comparison.speedup, comparison.low, comparison.high)


def factor(value: float | None, low: float | None, high: float | None) -> str:
    """A ratio and its interval; without one where there is none."""
    if value is None:
        return UNKNOWN
    if low is None or high is None:
        return f"{value:.3f}x"
    return f"{value:.3f}x [{low:.3f}, {f'{high:.3f}' if high < MOST else f'>{MOST:.0f}'}]"


def fact(value: object) -> str:
    """A recorded value; None is one that nobody knows."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(fact, value)) or "none"
    if isinstance(value, dict) and not value:
        return "none"
    return "unknown" if value is None else str(value)


def link(value: Link) -> str:
    """``local`` or ``paced h800-nvlink-ep8``."""
    return value.transport if value.name == value.transport else f"{value.transport} {value.name}"


def _said(values: Any, hidden: frozenset[str]) -> list[str]:
    """Fields that differ from their default, so that a new axis shows without a change here."""
    said = []
    for spec in fields(values):
        value = getattr(values, spec.name)
        if spec.name not in hidden and spec.default is not MISSING and value != default(spec, values):
            said.append(f"{spec.name} {value}")
    return said


def shape(value: Workload) -> str:
    """``deepseek-v3, EP8, 4 layers``; token count and precision are said apart."""
    layers = f"{value.layers} layer" + ("s" if value.layers > 1 else "")
    return ", ".join([value.model.name, f"EP{value.ep_size}", layers, *_said(value, IN_THE_TITLE)])


def series(value: Series) -> str:
    """One line that names everything but the token count."""
    return f"{short_series(value)} · {shape(value.workload)} · link {link(value.link)}"


def tokens_and_time(row: Row) -> str:
    """A token count over the time of its T1."""
    t1 = units.format_seconds(row.decomposition.t1_s) if row.decomposition else UNKNOWN
    return f"{count(row.tokens)}\n{t1}"


def short_series(value: Series) -> str:
    """``streams x2 triton, nvfp4-w4a16``."""
    return f"{value.variant.label}, {value.workload.precision}"


def by_kind_of_doubt(rows: Iterable[tuple[int, Iterable[str]]]) -> dict[str, list[int]]:
    """Kind of doubt, which is the words before its colon -> token counts of the rows that have it; of (tokens, doubts).
    The figures after the colon are in the results."""
    found: dict[str, list[int]] = {}
    for tokens, doubts in rows:
        for kind in dict.fromkeys(doubt.split(":")[0] for doubt in doubts):
            found.setdefault(kind, []).append(tokens)
    return found
