"""``split`` of a variant: a policy's name, or a mapping."""

from bench.config.nodes import Node, Problems
from bench.config.readers import Key, choice, join, mapping, whole_number
from moe_impl.options import SplitName, SplitPolicy

NAMES = choice(SplitName)


def read_ratio(node: Node, path: str, problems: Problems) -> float | None:
    """A bare number; SplitPolicy knows its limits."""
    if isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    problems.add(node, path, f"found {node.shown}, expected a number between 0 and 1")
    return None


_KEYS = {
    "policy": Key(NAMES, required=True),
    "ratio": Key(read_ratio),
    "min_tokens": Key(whole_number(0)),
}


def read_split(node: Node, path: str, problems: Problems) -> SplitPolicy | None:
    """``balanced``, or ``{policy: ratio, ratio: 0.48, min_tokens: 512}``."""
    if not isinstance(node.value, dict):
        policy = NAMES(node, path, problems)
        return None if policy is None else SplitPolicy(policy)
    given = mapping(node, path, problems, _KEYS)
    if given is None:
        return None
    try:
        return SplitPolicy(**given)
    except ValueError as error:
        key, _, reason = str(error).partition(" ")  # SplitPolicy's messages start with the field
        problems.add(node.value[key], join(path, key), reason)
        return None
