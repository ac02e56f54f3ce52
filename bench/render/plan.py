"""A Plan to a table for people and to JSON-able data for scripts. No arithmetic but counting."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench import units
from bench.filters import CASE_KEYS
from bench.identity import variant_id
from bench.naming import machine_name, varying
from bench.planning import Plan, PlannedCase
from bench.render import remarks
from bench.render.fitting import Fitting

COLUMNS = {"tokens": 7, "runs": 8, "weights": 9, "buffers": 9, "dispatch": 9, "combine": 9, "one pass": 9}
"""Title -> width; together under 80, so that no terminal breaks a row."""


def as_data(plan: Plan) -> dict[str, Any]:
    """``bench plan --json``: SI, the unit in every name."""
    return {
        "machine": asdict(plan.machine),
        "cases": len(plan.cases),
        "running_cases": len(plan.running),
        "variants": sum(len(planned.case.variants) for planned in plan.cases),
        "running_variants": sum(len(planned.runs) for planned in plan.cases),
        "passes": plan.measure.passes,
        "estimated_s": plan.estimated_s,
        "assumed": asdict(plan.rates),
        "plan": [_case_data(planned) for planned in plan.cases],
    }


def _case_data(planned: PlannedCase) -> dict[str, Any]:
    case = planned.case
    return {
        "case_id": case.case_id,
        **{key: read(case) for key, read in CASE_KEYS.items()},
        "tokens": case.workload.tokens,
        "weight_bytes": planned.weight_bytes,
        "buffer_bytes": planned.buffer_bytes,
        "dispatch_bytes": planned.dispatch_bytes,
        "combine_bytes": planned.combine_bytes,
        "estimated_s_per_pass": planned.estimated_s,
        "labels": list(planned.labels),
        "variants": [
            {
                "variant_id": variant_id(variant),
                "label": variant.label,
                "role": variant.role,
                "skipped": planned.skipped.get(variant),
            }
            for variant in case.variants
        ],
    }


def as_table(plan: Plan) -> RenderableType:
    """``bench plan``: counts, machine, one row a case, then what all rows share, each said once."""
    return Group(
        Text(counts(plan), style="bold" if plan.running else "bold yellow"),
        Text(machine(plan), style="dim"),
        "",
        *_cases(plan),
        *_said_once("Every case", _common(plan)),
        *_said_once("Variants", _variants(plan)),
        *_said_once("Remarks", remarks.of([planned.case for planned in plan.cases]), style="yellow"),
        *_said_once("Skipped", _skipped(plan), style="yellow"),
        *_said_once("Labels", dict.fromkeys(label for planned in plan.cases for label in planned.labels)),
        *_said_once("Later", _later(plan)),
        *_said_once("Assumed", [_assumption(plan)] if plan.running else []),
    )


def counts(plan: Plan) -> str:
    """The first line: ``14 cases, 70 variants, 5 passes: all run here, about 9.4 min``."""
    variants = sum(len(planned.case.variants) for planned in plan.cases)
    sizes = [_many(len(plan.cases), "case"), _many(variants, "variant"), _many(plan.measure.passes, "pass", "passes")]
    text = ", ".join(sizes)
    if not plan.running:
        return f"{text}: no case runs here"
    some = f"{units.format_count(len(plan.running))} of {_many(len(plan.cases), 'case')} run"
    runs = "all cases run" if len(plan.running) == len(plan.cases) else some
    return f"{text}: {runs} here, about {units.format_seconds(plan.estimated_s)}"


def machine(plan: Plan) -> str:
    """``NVIDIA H100 80GB HBM3, 132 SMs, 79.6 GiB, torch 2.13.0, triton 3.9.0``."""
    found = plan.machine
    parts = [machine_name(found), units.format_bytes(found.memory_bytes)]
    parts += [f"{found.sm_count} SMs"] if found.sm_count else []
    parts += [f"torch {found.torch_version}"] if found.torch_version else []
    parts += [f"triton {found.triton_version}" if found.triton_version else "no triton"]
    parts += [f"humming {found.humming_version}"] if found.humming_version else []
    return ", ".join(parts)


def _many(number: int, one: str, more: str | None = None) -> str:
    return f"{units.format_count(number)} {one if number == 1 else more or one + 's'}"


def _varying(plan: Plan) -> list[str]:
    """Case fields with more than one value, but tokens, which have a column anyway."""
    return [key for key in varying([planned.case for planned in plan.cases]) if key != "tokens"]


def _common(plan: Plan) -> Iterator[str]:
    hidden = {"tokens", *_varying(plan)}
    first = plan.cases[0].case
    shared = {key: read(first) for key, read in CASE_KEYS.items() if key not in hidden}
    same = {key for key, read in CASE_KEYS.items() if len({read(planned.case) for planned in plan.cases}) == 1}
    yield ", ".join(f"{key} {value}" for key, value in shared.items() if value and key in same)


def _cases(plan: Plan) -> Iterator[RenderableType]:
    """A table for every run of cases that differ in tokens alone, under a line that says what they are."""
    varying = _varying(plan)
    groups = itertools.groupby(plan.cases, key=lambda planned: [CASE_KEYS[key](planned.case) for key in varying])
    yield _table([], header=True)
    for values, group in groups:
        if varying:
            yield Text(", ".join(f"{key} {value}" for key, value in zip(varying, values, strict=True)), style="cyan")
        yield _table([(_numbers(planned), "" if planned.runs else "dim") for planned in group])
        yield ""
    yield _table([(_total(plan), "bold")])


def _table(rows: list[tuple[list[str], str]], *, header: bool = False) -> RenderableType:
    """Rows of (cells, style). Tables of equal widths line up under the one that has the header."""

    def draw(columns: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=header, header_style="bold")
        for title, width in list(COLUMNS.items())[:columns]:
            table.add_column(title, justify="right", no_wrap=True, width=width)
        for cells, style in rows:
            table.add_row(*cells[:columns], style=style)
        return table

    return Fitting(draw, tuple(COLUMNS), say=header)


def _total(plan: Plan) -> list[str]:
    """Variants that run and the time of one pass; sizes do not add up."""
    variants = sum(len(planned.case.variants) for planned in plan.cases)
    runs = sum(len(planned.runs) for planned in plan.cases)
    time = units.format_seconds(sum(planned.estimated_s for planned in plan.cases)) if runs else "-"
    return ["total", f"{runs} of {variants}", "", "", "", "", time]


def _numbers(planned: PlannedCase) -> list[str]:
    runs, variants = len(planned.runs), len(planned.case.variants)
    return [
        str(planned.case.workload.tokens),
        f"{runs} of {variants}" if runs else "none",
        units.format_bytes(planned.weight_bytes),
        units.format_bytes(planned.buffer_bytes),
        units.format_bytes(planned.dispatch_bytes),
        units.format_bytes(planned.combine_bytes),
        units.format_seconds(planned.estimated_s) if runs else "-",
    ]


def _variants(plan: Plan) -> Iterator[str]:
    """``nvfp4-w4a16: off triton, serial x2 triton, ...``; the precision only where the list depends on it."""
    lists: dict[str, dict[str, None]] = {}
    for planned in plan.cases:
        labels = ", ".join(variant.label for variant in planned.case.variants)
        lists.setdefault(labels, {})[planned.case.workload.precision] = None
    for labels, precisions in lists.items():
        yield labels if len(lists) == 1 else f"{', '.join(precisions)}: {labels}"


def _skipped(plan: Plan) -> Iterator[str]:
    """Each reason once, with the variants it meets; reasons that differ in their numbers alone count as one."""
    found: dict[str, list[tuple[str, str]]] = {}
    for planned in plan.cases:
        for variant, reason in planned.skipped.items():
            found.setdefault(re.sub(r"\d[\d.]*", "#", reason), []).append((reason, variant.label))
    for pairs in found.values():
        reasons = dict.fromkeys(reason for reason, _ in pairs)
        labels = ", ".join(dict.fromkeys(label for _, label in pairs))
        others = f" (and {_many(len(reasons) - 1, 'other')} like it)" if len(reasons) > 1 else ""
        yield f"{next(iter(reasons))}{others}: {_many(len(pairs), 'variant')} ({labels})"


def _later(plan: Plan) -> list[str]:
    """What the verdicts may ask for in the end: nobody knows it before, so it stands in no count."""
    settings = plan.measure
    said = []
    if settings.refine == "break_even":
        said.append(f"up to {_many(settings.refine_cases, 'case')} may be added around break-evens")
    if settings.link_sensitivity:
        said.append("each break-even's two cases over a modelled link again at bandwidth x0.5 and x2")
    return said


def _assumption(plan: Plan) -> str:
    rates = plan.rates
    nvfp4 = any(planned.case.workload.precision.startswith("nvfp4") for planned in plan.cases)
    copies = " NVFP4 weights: 2 copies, as drawn (the oracle's) and as the backend lays them out." if nvfp4 else ""
    return (
        f"{rates.flops_per_s / 1e12:g} TFLOP/s, {units.format_rate(rates.hbm_bytes_per_s)}, at least "
        f"{units.format_seconds(rates.op_s)} a stage, nothing overlapped: times are estimates, nothing was measured. "
        f"dispatch, combine: payload of one layer, balanced routing.{copies}"
    )


def _said_once(title: str, lines: Iterable[str], style: str = "") -> Iterator[RenderableType]:
    for i, line in enumerate(lines):
        if i == 0:
            yield ""
        row = Table.grid(padding=(0, 2))
        row.add_column(width=10, style="bold")
        row.add_column(overflow="fold")
        row.add_row(title if i == 0 else "", Text(line, style=style))
        yield row
