"""``--map RULES.yaml``: how to read somebody else's trace, by annotation, stream or kernel name."""

import re
from pathlib import Path
from typing import Any

from bench.config.nodes import Node, Problems, parse, read_text
from bench.config.readers import Key, Reader, choice, join, mapping
from bench.errors import BenchError
from bench.timeline.attribute import GROUPS, KernelRule, LaneName, Rules

KNOWN = Path(__file__).parent / "rules" / "known.yaml"
"""DeepEP, NCCL, TensorRT-LLM and FlashInfer, by kernel name."""
MEANINGS = ("stage", "run", *GROUPS)


def load_rules(path: Path = KNOWN) -> Rules:
    """Read a rules file; our own annotations are understood besides.

    Raises:
        BenchError: one line per problem, with its place in the file.
    """
    problems = Problems(str(path))
    try:
        root = parse(read_text(path, "rules file (YAML)"), problems)
        found = mapping(root, "", problems, _KEYS)
    except RecursionError:
        raise BenchError(f"{path}: nested too deeply") from None
    problems.raise_all()
    assert found is not None  # a problem was noted otherwise
    ours = Rules()
    return Rules(
        ranges=(*found.get("ranges", ()), *ours.ranges),
        stages={**ours.stages, **found.get("stages", {})},
        streams=found.get("streams", {}),
        kernels=tuple(found.get("kernels", ())),
    )


def _pattern(node: Node, path: str, problems: Problems) -> re.Pattern[str] | None:
    if not isinstance(node.value, str):
        problems.add(node, path, f"found {node.shown}, expected a regular expression")
        return None
    try:
        return re.compile(node.value)
    except re.error as error:
        problems.add(node, path, f"found {node.shown}, no regular expression: {error}")
        return None


def _range_pattern(node: Node, path: str, problems: Problems) -> re.Pattern[str] | None:
    found = _pattern(node, path, problems)
    if found is None:
        return None
    unknown = [name for name in found.groupindex if name not in MEANINGS]
    if unknown or not found.groupindex:
        groups = f"group {unknown[0]}" if unknown else "no named group"
        problems.add(node, path, f"found {groups}, expected one of {', '.join(f'(?P<{name}>..)' for name in MEANINGS)}")
        return None
    return found


def _each(read: Reader[Any]) -> Reader[list[Any]]:
    def read_list(node: Node, path: str, problems: Problems) -> list[Any] | None:
        if not isinstance(node.value, list):
            problems.add(node, path, f"found {node.shown}, expected a list")
            return None
        items = [read(item, f"{path}[{i}]", problems) for i, item in enumerate(node.value)]
        return None if any(item is None for item in items) else items

    return read_list


_RULE_KEYS = {
    "match": Key(_pattern, required=True),
    "lane": Key(choice(LaneName), required=True),
    "stage": Key(lambda node, path, problems: _text(node, path, problems)),
}


def _text(node: Node, path: str, problems: Problems) -> str | None:
    if isinstance(node.value, str) and node.value:
        return node.value
    problems.add(node, path, f"found {node.shown}, expected a name")
    return None


def _kernel(node: Node, path: str, problems: Problems) -> KernelRule | None:
    found = mapping(node, path, problems, _RULE_KEYS)
    return None if found is None else KernelRule(**found)


def _lanes_by_name(node: Node, path: str, problems: Problems) -> dict[str, LaneName] | None:
    if not isinstance(node.value, dict):
        problems.add(node, path, f"found {node.shown}, expected a mapping to compute or comm")
        return None
    lanes: dict[str, Any] = {
        key: choice(LaneName)(value, join(path, key), problems) for key, value in node.value.items()
    }
    return None if None in lanes.values() else lanes


def _lanes_by_stream(node: Node, path: str, problems: Problems) -> dict[int, LaneName] | None:
    lanes = _lanes_by_name(node, path, problems)
    if lanes is None:
        return None
    assert isinstance(node.value, dict)
    wrong = [key for key in lanes if not (key.isascii() and key.isdigit() and len(key) < 19)]
    for key in wrong:
        problems.add(node.value[key], path, f"found stream {key}, expected its number")
    return None if wrong else {int(key): lane for key, lane in lanes.items()}


_KEYS = {
    "ranges": Key(_each(_range_pattern)),
    "stages": Key(_lanes_by_name),
    "streams": Key(_lanes_by_stream),
    "kernels": Key(_each(_kernel)),
}
