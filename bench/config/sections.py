"""The sections of a sweep file: which keys each one has and what they become."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

from bench import units
from bench.config.nodes import Node, Problems
from bench.config.readers import (
    Key,
    Reader,
    choice,
    for_hint,
    join,
    mapping,
    one_or_many,
    preset,
    quantity,
    whole_number,
)
from bench.config.spec import CaseAxes, VariantSpec
from bench.measure.settings import MeasureSettings
from moe_impl.links import LOCAL, PACED_PRESETS
from moe_impl.options import Direction, Link, LinkTime, Precision, RoutingKind, Variant
from moe_impl.shapes import PRESETS, ModelShape

SCHEMA = 1
MAX_SEED = 2**63 - 1
SHAPE_SIZES = ("hidden_size", "intermediate_size", "num_experts", "top_k")
_SHAPE_KEYS = {size: Key(whole_number(1), required=True) for size in SHAPE_SIZES}


def read_schema(node: Node, path: str, problems: Problems) -> int | None:
    """The file's schema version."""
    if node.value == SCHEMA and type(node.value) is int:
        return SCHEMA
    problems.add(node, path, f"found {node.shown}, this program reads {SCHEMA}")
    return None


def read_model(node: Node, path: str, problems: Problems) -> ModelShape | None:
    """A preset's name, or the four sizes inline (softmax router)."""
    if not isinstance(node.value, dict):
        return preset("model", PRESETS, f"{{{', '.join(_SHAPE_KEYS)}}}")(node, path, problems)
    sizes = mapping(node, path, problems, _SHAPE_KEYS)
    if sizes is None:
        return None
    name = "h{hidden_size}-i{intermediate_size}-e{num_experts}-k{top_k}".format(**sizes)
    try:
        return ModelShape(**sizes, name=name)
    except ValueError as error:
        size, _, reason = str(error).partition(" ")  # ModelShape's messages start with the field
        problems.add(node.value[size], join(path, size), reason)
        return None


def _per_direction(read_one: Reader[float]) -> Reader[dict[str, float]]:
    """One quantity for both directions, or one for each."""
    keys = {direction: Key(read_one, required=True) for direction in get_args(Direction)}

    def read(node: Node, path: str, problems: Problems) -> dict[str, float] | None:
        if isinstance(node.value, dict):
            return mapping(node, path, problems, keys)
        value = read_one(node, path, problems)
        return None if value is None else dict.fromkeys(keys, value)

    return read


_PACED_KEYS = {
    "alpha": Key(_per_direction(quantity(units.TIME)), required=True),
    "bandwidth": Key(_per_direction(quantity(units.RATE, zero=False)), required=True),
    "comm_sms": Key(whole_number(1), required=True),
}
_LINK_FORMS = "local, {paced: PRESET}, {paced: {alpha, bandwidth, comm_sms}}"


def read_paced(node: Node, path: str, problems: Problems) -> Link | None:
    """A preset's name, or alpha, bandwidth and comm_sms inline."""
    if not isinstance(node.value, dict):
        return preset("link", PACED_PRESETS, f"{{{', '.join(_PACED_KEYS)}}}")(node, path, problems)
    given = mapping(node, path, problems, _PACED_KEYS)
    if given is None:
        return None
    alpha, bandwidth = given["alpha"], given["bandwidth"]
    times = tuple(LinkTime(direction, alpha[direction], bandwidth[direction]) for direction in get_args(Direction))
    name = f"{_joined(bandwidth, units.format_rate)}-{_joined(alpha, units.format_seconds)}-{given['comm_sms']}sm"
    return Link("paced", given["comm_sms"], times, name=name)


def _joined(per_direction: Mapping[str, float], text: Callable[[float], str]) -> str:
    """``150GB/s``, or ``153GB/s+158GB/s`` where the directions differ: no space or comma, for ``--filter``."""
    return "+".join(dict.fromkeys(text(value).replace(" ", "").replace(",", "") for value in per_direction.values()))


def read_link(node: Node, path: str, problems: Problems) -> Link | None:
    """``local``, or ``{paced: ...}``."""
    if node.value == LOCAL.name:
        return LOCAL
    if not isinstance(node.value, dict):
        problems.add(node, path, f"found {node.shown}, allowed: {_LINK_FORMS}")
        return None
    given = mapping(node, path, problems, {"paced": Key(read_paced, required=True)})
    return None if given is None else given["paced"]


def read_case(node: Node, path: str, problems: Problems) -> CaseAxes | None:
    """Every key may be a list; the order of the keys is that of messages."""
    readers: dict[str, Reader[Any]] = {
        "model": read_model,
        "ep_size": whole_number(1),
        "layers": whole_number(1),
        "tokens": whole_number(1),
        "precision": choice(Precision),
        "routing": choice(RoutingKind),
        "link": read_link,
        "seed": whole_number(0, MAX_SEED),
    }
    required = {axis.name for axis in fields(CaseAxes) if axis.default is MISSING}
    keys = {name: Key(one_or_many(read), name in required) for name, read in readers.items()}
    axes = mapping(node, path, problems, keys)
    return None if axes is None else CaseAxes(**axes)


def read_variants(node: Node, path: str, problems: Problems) -> tuple[VariantSpec, ...] | None:
    """``-`` entries of Variant fields; a list inside an entry multiplies."""
    if not isinstance(node.value, list):
        problems.add(node, path, f"found {node.shown}, expected a list of `- {{engine: ..., split_factor: ...}}`")
        return None
    if not node.value:
        problems.add(node, path, "found an empty list, expected at least one variant")
        return None
    hints = get_type_hints(Variant)
    keys = {field.name: Key(one_or_many(for_hint(hints[field.name]))) for field in fields(Variant)}
    entries = [mapping(entry, f"{path}[{i}]", problems, keys) for i, entry in enumerate(node.value)]
    specs = [VariantSpec(tuple(entry.items())) for entry in entries if entry is not None]
    return tuple(specs) if len(specs) == len(entries) else None


MEASURE_KEYS: dict[str, tuple[str, Reader[Any]]] = {
    "passes": ("passes", whole_number(1)),
    "rounds": ("rounds", whole_number(1)),
    "round_min": ("round_min_s", quantity(units.TIME)),
    "warm_up": ("warm_up_s", quantity(units.TIME)),
    "decide_beyond": ("decide_beyond", quantity(units.FRACTION, below=1)),
    "same_within": ("same_within", quantity(units.FRACTION, below=1)),
    "case_limit": ("case_limit_s", quantity(units.TIME, zero=False)),
}
"""Key of the file -> (field of MeasureSettings, reader)."""


def read_measure(node: Node, path: str, problems: Problems) -> MeasureSettings | None:
    """Keys that are absent keep MeasureSettings' defaults."""
    given = mapping(node, path, problems, {key: Key(read) for key, (_, read) in MEASURE_KEYS.items()})
    if given is None:
        return None
    return MeasureSettings(**{MEASURE_KEYS[key][0]: value for key, value in given.items()})
