"""Readers of single values, lists and mappings: a Node to a checked value, or a noted problem and None.

Allowed values come from type hints (``Literal``, ``int``), so a new value of an axis needs no change here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_origin

from bench import units
from bench.config.nodes import Node, Problems
from bench.hints import did_you_mean, not_allowed

T = TypeVar("T")
Reader: TypeAlias = Callable[[Node, str, Problems], T | None]
"""(node, dotted path, problems) to the value; None when a problem was noted."""

MAX_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Key:
    """A key that a mapping may hold."""

    read: Reader[Any]
    required: bool = False


def join(path: str, key: str) -> str:
    """Dotted path of ``key`` in the mapping at ``path``."""
    return f"{path}.{key}" if path else key


def whole_number(minimum: int, maximum: int = MAX_COUNT) -> Reader[int]:
    """An integer in minimum..maximum; a boolean is none."""

    def read(node: Node, path: str, problems: Problems) -> int | None:
        value = node.value
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            problems.add(node, path, f"found {node.shown}, expected a whole number >= {minimum}")
            return None
        if value > maximum:
            problems.add(node, path, f"found {node.shown}, expected a whole number <= {maximum}")
            return None
        return value

    return read


def choice(hint: Any) -> Reader[Any]:
    """One of the strings of a ``Literal``."""
    allowed = get_args(hint)

    def read(node: Node, path: str, problems: Problems) -> Any:
        if node.value in allowed and isinstance(node.value, str):
            return node.value
        problems.add(node, path, not_allowed(node.shown, allowed))
        return None

    return read


def preset(kind: str, presets: Mapping[str, T], otherwise: str) -> Reader[T]:
    """A named preset; ``otherwise`` says what else could stand there."""

    def read(node: Node, path: str, problems: Problems) -> T | None:
        if isinstance(node.value, str) and node.value in presets:
            return presets[node.value]
        if not isinstance(node.value, str):
            problems.add(node, path, f"found {node.shown}, expected a {kind} preset or {otherwise}")
            return None
        meant = did_you_mean(node.shown, presets) or ","
        names = ", ".join(presets)
        problems.add(node, path, f"unknown {kind} preset {node.shown}{meant} allowed: {names}, or {otherwise}")
        return None

    return read


def quantity(dimension: units.Dimension, *, zero: bool = True, below: float | None = None) -> Reader[float]:
    """Text with a unit to SI. ``zero``: whether 0 makes sense; ``below``: an exclusive upper limit."""

    def read(node: Node, path: str, problems: Problems) -> float | None:
        # bare numbers (15, .nan) are not text; their spelling gets the same message as text without a unit
        if isinstance(node.value, (list, dict)):
            problems.add(node, path, f"found {node.shown}, expected {dimension.name} such as {dimension.example}")
            return None
        try:
            value = units.parse(node.value if isinstance(node.value, str) else node.shown, dimension)
        except ValueError as error:
            problems.add(node, path, f"found {node.shown}, {error}")
            return None
        if value == 0 and not zero:
            problems.add(node, path, f"found {node.shown}, expected {dimension.name} above 0")
            return None
        if value and not dimension.least <= value <= dimension.most:
            unit = next(name for name, size in dimension.units.items() if size == 1)
            limits = f"from {dimension.least:g} to {dimension.most:g} {unit}"
            problems.add(node, path, f"found {node.shown}, expected {dimension.name} {limits}")
            return None
        if below is not None and value >= below:
            problems.add(node, path, f"found {node.shown}, expected {dimension.name} below {below:g}")
            return None
        return value

    return read


def quantity_after(words: str, dimension: units.Dimension, *, below: float) -> Reader[float]:
    """``WORDS QUANTITY``, such as ``ratio within 0.5 %``, to the quantity, which lies above 0 and under ``below``."""
    read_quantity = quantity(dimension, zero=False, below=below)

    def read(node: Node, path: str, problems: Problems) -> float | None:
        head, found, rest = str(node.value).partition(words)
        if head.strip() or not found:
            problems.add(node, path, f"found {node.shown}, expected `{words} {dimension.example}`")
            return None
        return read_quantity(replace(node, value=rest.strip()), path, problems)

    return read


def switch(node: Node, path: str, problems: Problems) -> bool | None:
    """true or false."""
    if isinstance(node.value, bool):
        return node.value
    problems.add(node, path, f"found {node.shown}, expected true or false")
    return None


def for_hint(hint: Any) -> Reader[Any]:
    """The reader of a dataclass field: ``Literal`` of strings, or a count >= 1."""
    if get_origin(hint) is Literal:
        return choice(hint)
    if hint is int:
        return whole_number(1)
    raise TypeError(f"no reader for {hint!r}")


def one_or_many(read_item: Reader[T]) -> Reader[tuple[T, ...]]:
    """A value, or a list of distinct values (an axis)."""

    def read(node: Node, path: str, problems: Problems) -> tuple[T, ...] | None:
        if not isinstance(node.value, list):
            single = read_item(node, path, problems)
            return None if single is None else (single,)
        if not node.value:
            problems.add(node, path, "found an empty list, expected at least one value")
            return None
        items = [read_item(item, path, problems) for item in node.value]
        values: dict[Any, Node] = {}
        for item, value in zip(node.value, items, strict=True):
            if value is not None and value in values:
                problems.add(item, path, f"found the same value twice: {item.shown} is already on the list")
            values[value] = item
        return None if None in values else tuple(values)

    return read


def mapping(node: Node, path: str, problems: Problems, keys: Mapping[str, Key]) -> dict[str, Any] | None:
    """The values of the keys that are there, each read; None after any problem, all of them noted."""
    if not isinstance(node.value, dict):
        expected = f"expected a mapping with {', '.join(keys)}"
        problems.add(node, path, f"found {node.shown}, {expected}")
        return None
    complete = True
    for key, entry in node.value.items():
        if key not in keys:
            meant = did_you_mean(key, keys) or ","
            problems.add(entry, path, f"unknown key {key}{meant} allowed: {', '.join(keys)}")
            complete = False
    values: dict[str, Any] = {}
    for key, spec in keys.items():
        if key in node.value:
            values[key] = spec.read(node.value[key], join(path, key), problems)
            complete = complete and values[key] is not None
        elif spec.required:
            problems.add(node, join(path, key), "missing, it is required")
            complete = False
    return values if complete else None
