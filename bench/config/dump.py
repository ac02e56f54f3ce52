"""A SweepConfig to the text of ``config.resolved.yaml``: every key written out, floats exact, ``load`` reads it back.

A preset keeps its name, which is what carries its router and source, with its resolved values in a comment.
"""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from bench import units
from bench.config.sections import MEASURE_KEYS, SCHEMA, SHAPE_SIZES, WITHIN
from bench.config.spec import SweepConfig
from bench.settings import SampleLimits
from moe_impl.links import COLLECTIVE, HOST_LINK, LOCAL, PACED_PRESETS
from moe_impl.options import Attention, Link, LinkTime, SkewedRouting, SplitPolicy
from moe_impl.shapes import PRESETS, ModelShape

QUESTION = "Question:"


def dump_resolved(config: SweepConfig) -> str:
    """YAML text that ``load`` reads back to an equal SweepConfig."""
    lines = [f"# {QUESTION} {config.question}"] if config.question else []
    lines += [f"schema: {SCHEMA}", "case:"]
    for axis in fields(config.case):
        values = getattr(config.case, axis.name)
        if values == (None,):  # no such key: there is none, or another axis decides
            continue
        lines.append(f"  {axis.name}:")
        for value in values:
            lines.append(f"    - {_value(value)}")
    lines += ["variants:"] if config.variants else []
    for spec in config.variants:
        entries = (f"{name}: [{', '.join(map(_value, values))}]" for name, values in spec.values)
        lines.append(f"  - {{{', '.join(entries)}}}")
    lines.append("measure:")
    idle = ("samples", "stop_when") if config.measure.stop_when is None else ("rounds",)
    for key, (name, _) in MEASURE_KEYS.items():
        if key not in idle:
            lines.append(f"  {key}: {_setting(name, getattr(config.measure, name))}")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, ModelShape):
        return _model(value)
    if isinstance(value, SplitPolicy):
        return f"{{{', '.join(f'{name}: {setting}' for name, setting in asdict(value).items())}}}"
    if isinstance(value, Attention):
        return f"{{context: {value.context}, phase: {value.phase}}}"
    if isinstance(value, SkewedRouting):
        return f"{{{value.kind}: {value.amount!r}, rank: {value.rank}}}"
    return _link(value) if isinstance(value, Link) else str(value)


def _model(model: ModelShape) -> str:
    sizes = ", ".join(f"{size}: {getattr(model, size)}" for size in SHAPE_SIZES)
    sizes += f", shared_experts: {model.shared_experts}" if model.shared_experts else ""
    if model == PRESETS.get(model.name):
        router = ", ".join(f"{name}: {value}" for name, value in asdict(model.router).items())
        return f"{model.name}  # {{{sizes}}}, router {{{router}}}"
    return f"{{{sizes}}}"


def _link(link: Link) -> str:
    if link in (LOCAL, HOST_LINK, COLLECTIVE):
        return link.name
    alpha = _per_direction(link, lambda time: exact(time.alpha_s, units.TIME))
    bandwidth = _per_direction(link, lambda time: exact(time.bandwidth_bytes_per_s, units.RATE))
    copies = "" if link.copies == "rank" else f", copies: {link.copies}"
    written_out = f"{{paced: {{alpha: {alpha}, bandwidth: {bandwidth}, comm_sms: {link.comm_sms}{copies}}}}}"
    if link == PACED_PRESETS.get(link.name):
        return f"{{paced: {link.name}}}  # {written_out}"
    return f"{written_out}  # {link.note}" if link.note else written_out


def _per_direction(link: Link, text: Callable[[LinkTime], str]) -> str:
    """``{dispatch: .., combine: ..}``, each one quantity or one per payload dtype."""
    parts = []
    for direction in dict.fromkeys(time.direction for time in link.times):
        times = [time for time in link.times if time.direction == direction]
        if [time.dtype for time in times] == [None]:
            parts.append(f"{direction}: {text(times[0])}")
        else:
            parts.append(f"{direction}: {{{', '.join(f'{time.dtype}: {text(time)}' for time in times)}}}")
    return f"{{{', '.join(parts)}}}"


def _setting(name: str, value: float | str | SampleLimits) -> str:
    if isinstance(value, SampleLimits):
        return f"{{min: {value.min}, max: {value.max}}}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    if name == "stop_when":
        return f"{WITHIN} {exact(value, units.FRACTION)}"
    if isinstance(value, int):
        return str(value)
    return exact(value, units.TIME if name.endswith("_s") else units.FRACTION)


def exact(value: float, dimension: units.Dimension) -> str:
    """A quantity in its SI unit with every digit, as :func:`bench.units.parse` reads it."""
    unit = next(unit for unit, factor in dimension.units.items() if factor == 1)
    return f"{value!r} {unit}"
