"""The sections of a sweep file: which keys each one has and what they become."""

from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from bench import units
from bench.config.attention import read_attention
from bench.config.link_reader import read_link
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
    quantity_after,
    switch,
    whole_number,
)
from bench.config.routing import read_routing
from bench.config.spec import CaseAxes, VariantSpec
from bench.config.split import read_split
from bench.settings import MeasureSettings, Refine, SampleLimits
from moe_impl.options import Precision, Variant
from moe_impl.payload import PayloadDtype
from moe_impl.shapes import PRESETS, ModelShape
from moe_impl.support import MOST_UBATCHES

SCHEMA = 1
MAX_SEED = 2**63 - 1
SHAPE_SIZES = ("hidden_size", "intermediate_size", "num_experts", "top_k")
_SHAPE_KEYS = {
    **{size: Key(whole_number(1), required=True) for size in SHAPE_SIZES},
    "shared_experts": Key(whole_number(0)),
}


def read_schema(node: Node, path: str, problems: Problems) -> int | None:
    """The file's schema version."""
    if node.value == SCHEMA and type(node.value) is int:
        return SCHEMA
    problems.add(node, path, f"found {node.shown}, this program reads {SCHEMA}")
    return None


def read_model(node: Node, path: str, problems: Problems) -> ModelShape | None:
    """A preset's name, or the four sizes, and perhaps shared experts, inline (softmax router)."""
    if not isinstance(node.value, dict):
        return preset("model", PRESETS, f"{{{', '.join(SHAPE_SIZES)}}}")(node, path, problems)
    sizes = mapping(node, path, problems, _SHAPE_KEYS)
    if sizes is None:
        return None
    name = "h{hidden_size}-i{intermediate_size}-e{num_experts}-k{top_k}".format(**sizes)
    name += f"-s{sizes['shared_experts']}" if sizes.get("shared_experts") else ""
    try:
        return ModelShape(**sizes, name=name)
    except ValueError as error:
        size, _, reason = str(error).partition(" ")  # ModelShape's messages start with the field
        problems.add(node.value[size], join(path, size), reason)
        return None


def read_case(node: Node, path: str, problems: Problems) -> CaseAxes | None:
    """Every key may be a list; the order of the keys is that of messages."""
    readers: dict[str, Reader[Any]] = {
        "model": read_model,
        "ep_size": whole_number(1),
        "layers": whole_number(1),
        "tokens": whole_number(1),
        "precision": choice(Precision),
        "dispatch_dtype": choice(PayloadDtype),
        "routing": read_routing,
        "attention": read_attention,
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
    readers: dict[str, Reader[Any]] = {
        "split": read_split,
        "split_factor": whole_number(1, MOST_UBATCHES),
        "reserve_sms": whole_number(0),
        "max_tokens_per_rank": whole_number(1),
    }
    keys = {
        spec.name: Key(one_or_many(readers.get(spec.name) or for_hint(hints[spec.name]))) for spec in fields(Variant)
    }
    entries = [mapping(entry, f"{path}[{i}]", problems, keys) for i, entry in enumerate(node.value)]
    specs = [VariantSpec(tuple(entry.items())) for entry in entries if entry is not None]
    return tuple(specs) if len(specs) == len(entries) else None


WITHIN = "ratio within"


def read_samples(node: Node, path: str, problems: Problems) -> SampleLimits | None:
    """``{min: .., max: ..}``; a key that is absent keeps its default."""
    given = mapping(node, path, problems, {spec.name: Key(whole_number(2)) for spec in fields(SampleLimits)})
    if given is None:
        return None
    limits = SampleLimits(**given)
    if limits.min > limits.max:
        problems.add(node, path, f"found min {limits.min} above max {limits.max}, expected at most that")
        return None
    return limits


MEASURE_KEYS: dict[str, tuple[str, Reader[Any]]] = {
    "passes": ("passes", whole_number(1)),
    "rounds": ("rounds", whole_number(1)),
    "samples": ("samples", read_samples),
    "stop_when": ("stop_when", quantity_after(WITHIN, units.FRACTION, below=1)),
    "round_min": ("round_min_s", quantity(units.TIME)),
    "warm_up": ("warm_up_s", quantity(units.TIME)),
    "cold_l2": ("cold_l2", switch),
    "cross_check": ("cross_check", switch),
    "repeat_doubtful": ("repeat_doubtful", switch),
    "aa": ("aa", switch),
    "decide_beyond": ("decide_beyond", quantity(units.FRACTION, below=1)),
    "same_within": ("same_within", quantity(units.FRACTION, below=1)),
    "refine": ("refine", choice(Refine)),
    "refine_cases": ("refine_cases", whole_number(1)),
    "refine_limit": ("refine_limit_s", quantity(units.TIME, zero=False)),
    "link_sensitivity": ("link_sensitivity", switch),
    "case_limit": ("case_limit_s", quantity(units.TIME, zero=False)),
}
"""Key of the file -> (field of MeasureSettings, reader)."""


def read_measure(node: Node, path: str, problems: Problems) -> MeasureSettings | None:
    """Keys that are absent keep MeasureSettings' defaults."""
    given = mapping(node, path, problems, {key: Key(read) for key, (_, read) in MEASURE_KEYS.items()})
    if given is None:
        return None
    return MeasureSettings(**{MEASURE_KEYS[key][0]: value for key, value in given.items()})
