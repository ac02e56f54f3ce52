"""``routing`` of a case: a name, or which experts are preferred and which rank this process then is."""

from typing import get_args

from bench.config.nodes import Node, Problems
from bench.config.readers import MAX_COUNT, Key, join, mapping, whole_number
from bench.hints import did_you_mean
from moe_impl.options import ChosenRank, RoutingKind, Skew, SkewedRouting

SKEWS, NAMED_RANKS = get_args(Skew), get_args(ChosenRank)
ALLOWED = (*get_args(RoutingKind), "{zipf: S}", "{hotspot: SHARE}")


def read_amount(node: Node, path: str, problems: Problems) -> float | None:
    """A bare number; SkewedRouting knows its limits."""
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    problems.add(node, path, f"found {node.shown}, expected a number such as 1.0 (zipf) or 0.3 (hotspot)")
    return None


def read_rank(node: Node, path: str, problems: Problems) -> int | ChosenRank | None:
    """A named rank, or a number; whether the group has it depends on ``ep_size``."""
    if isinstance(node.value, str) and node.value in NAMED_RANKS:
        return node.value  # type: ignore[return-value]
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return whole_number(0, MAX_COUNT)(node, path, problems)
    meant = did_you_mean(node.shown, NAMED_RANKS) or ","
    problems.add(node, path, f"found {node.shown}{meant} allowed: {', '.join(NAMED_RANKS)}, or a rank's number")
    return None


_KEYS = {**{skew: Key(read_amount) for skew in SKEWS}, "rank": Key(read_rank)}


def read_routing(node: Node, path: str, problems: Problems) -> RoutingKind | SkewedRouting | None:
    """``uniform``, ``{zipf: 1.0}``, ``{hotspot: 0.3, rank: 5}``."""
    if not isinstance(node.value, dict):
        if isinstance(node.value, str) and node.value in get_args(RoutingKind):
            return node.value  # type: ignore[return-value]
        meant = did_you_mean(node.shown, (*get_args(RoutingKind), *SKEWS)) or ","
        problems.add(node, path, f"found {node.shown}{meant} allowed: {', '.join(ALLOWED)}")
        return None
    given = mapping(node, path, problems, _KEYS)
    if given is None:
        return None
    kinds = [skew for skew in SKEWS if skew in given]
    if len(kinds) != 1:
        found = " and ".join(kinds) or ("a mapping without either" if given else "an empty mapping")
        problems.add(node, path, f"found {found}, expected one of {', '.join(SKEWS)}")
        return None
    kind = kinds[0]
    try:
        return SkewedRouting(kind, given[kind], **({"rank": given["rank"]} if "rank" in given else {}))
    except ValueError as error:
        _, _, reason = str(error).partition(" ")  # SkewedRouting's messages start with the field
        problems.add(node.value[kind], join(path, kind), reason)
        return None
