"""``case.link``: which forms a link has and what they become."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, get_args

from bench import units
from bench.config.link_table import read_table
from bench.config.nodes import Node, Problems
from bench.config.readers import Key, Reader, choice, mapping, preset, quantity, whole_number
from bench.hints import did_you_mean
from moe_impl.links import COLLECTIVE, HOST_LINK, LOCAL, PACED_PRESETS
from moe_impl.options import Copies, Direction, Link, LinkTime
from moe_impl.payload import PayloadDtype

PerDtype: TypeAlias = dict[Any, float]
"""PayloadDtype -> quantity; None fills every dtype."""


def _per_dtype(read_one: Reader[float]) -> Reader[PerDtype]:
    """One quantity for every payload dtype, or one for each of some."""
    keys = {dtype: Key(read_one) for dtype in get_args(PayloadDtype)}

    def read(node: Node, path: str, problems: Problems) -> PerDtype | None:
        if isinstance(node.value, dict):
            if not node.value:
                problems.add(node, path, f"found an empty mapping, expected one of {', '.join(keys)}")
                return None
            return mapping(node, path, problems, keys)
        value = read_one(node, path, problems)
        return None if value is None else {None: value}

    return read


def _per_direction(read_one: Reader[float]) -> Reader[dict[Any, PerDtype]]:
    """One quantity for both directions, or one for each, per payload dtype where wanted."""
    keys = {direction: Key(_per_dtype(read_one), required=True) for direction in get_args(Direction)}

    def read(node: Node, path: str, problems: Problems) -> dict[Any, PerDtype] | None:
        if isinstance(node.value, dict):
            return mapping(node, path, problems, keys)
        value = read_one(node, path, problems)
        return None if value is None else {direction: {None: value} for direction in keys}

    return read


_PACED_KEYS = {
    "alpha": Key(_per_direction(quantity(units.TIME)), required=True),
    "bandwidth": Key(_per_direction(quantity(units.RATE, zero=False)), required=True),
    "comm_sms": Key(whole_number(1), required=True),
    "copies": Key(choice(Copies)),
}
_REQUIRED = ", ".join(name for name, key in _PACED_KEYS.items() if key.required)
_LINK_FORMS = f"local, host_link, collective, {{paced: PRESET}}, {{paced: {{{_REQUIRED}}}}}, {{table: FILE.csv}}"


def read_paced(node: Node, path: str, problems: Problems) -> Link | None:
    """A preset's name, or alpha, bandwidth and comm_sms inline."""
    if not isinstance(node.value, dict):
        return preset("link", PACED_PRESETS, f"{{{_REQUIRED}}}")(node, path, problems)
    given = mapping(node, path, problems, _PACED_KEYS)
    if given is None:
        return None
    times: list[LinkTime] = []
    for direction in get_args(Direction):
        alpha, bandwidth = given["alpha"][direction], given["bandwidth"][direction]
        if set(alpha) != set(bandwidth) and {None} not in (set(alpha), set(bandwidth)):
            found = f"alpha of {', '.join(alpha)} and bandwidth of {', '.join(bandwidth)}"
            problems.add(node, path, f"found {direction} {found}, expected the same dtypes")
            return None
        dtypes = alpha if set(bandwidth) == {None} else bandwidth
        times += [LinkTime(direction, _of(alpha, dtype), _of(bandwidth, dtype), dtype) for dtype in dtypes]
    copies = given.get("copies", "rank")
    rates = _joined((time.bandwidth_bytes_per_s for time in times), units.format_rate)
    alphas = _joined((time.alpha_s for time in times), units.format_seconds)
    name = f"{rates}-{alphas}-{given['comm_sms']}sm" + ("" if copies == "rank" else f"-{copies}")
    return Link("paced", given["comm_sms"], tuple(times), copies, name=name)


def _of(per_dtype: PerDtype, dtype: PayloadDtype | None) -> float:
    return per_dtype[dtype] if dtype in per_dtype else per_dtype[None]


def _joined(values: Iterable[float], text: Callable[[float], str]) -> str:
    """``150GB/s``, or ``153GB/s+158GB/s`` where they differ: no space or comma, for ``--filter``."""
    return "+".join(dict.fromkeys(text(value).replace(" ", "").replace(",", "") for value in values))


_PLAIN = {link.name: link for link in (LOCAL, HOST_LINK, COLLECTIVE)}
_LINK_KEYS = {"paced": Key(read_paced), "table": Key(read_table)}


def read_link(node: Node, path: str, problems: Problems) -> Link | None:
    """``local``, ``host_link``, ``collective``, ``{paced: ...}`` or ``{table: ...}``."""
    if not isinstance(node.value, dict):
        if isinstance(node.value, str) and node.value in _PLAIN:
            return _PLAIN[node.value]
        is_preset = isinstance(node.value, str) and node.value in PACED_PRESETS
        near = did_you_mean(node.shown, (*_PLAIN, *_LINK_KEYS))
        meant = f", did you mean {{paced: {node.value}}}?" if is_preset else near or ","
        presets = ", ".join(PACED_PRESETS)
        problems.add(node, path, f"found {node.shown}{meant} allowed: {_LINK_FORMS}; PRESET is one of {presets}")
        return None
    if len(node.value) != 1 and _LINK_KEYS.keys() >= node.value.keys():
        problems.add(node, path, f"found {' and '.join(node.value) or 'an empty mapping'}, allowed: {_LINK_FORMS}")
        return None
    given = mapping(node, path, problems, _LINK_KEYS)
    return None if given is None else next(iter(given.values()))
