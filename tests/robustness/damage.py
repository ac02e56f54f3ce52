"""Ways to damage a file: bytes of any, values of JSON. Which way is drawn by hypothesis."""

import copy
import json
import math
import re
from typing import Any

from hypothesis import strategies as st

HOSTILE: tuple[Any, ...] = (
    None, True, "", "x", "\x1b[31mred", "\ud800", "nan", -1, -0.5, 0, 1e308, 5e-324, math.nan, math.inf, -math.inf,
    2**63, 10**300, [], {}, [[]], [None], {"": 0},
)  # fmt: skip
"""Values that stand where something else should."""
Path_ = tuple[str | int, ...]


def places(value: Any, here: Path_ = ()) -> list[Path_]:
    """The way to every value in a JSON document but the document itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(*here, key), *places(item, (*here, key))]
    return found


def at(document: Any, place: Path_) -> Any:
    """The value at ``place``."""
    for key in place:
        document = document[key]
    return document


def replaced(document: Any, place: Path_, value: Any) -> Any:
    """A copy with another value there."""
    changed = copy.deepcopy(document)
    at(changed, place[:-1])[place[-1]] = value
    return changed


def removed(document: Any, place: Path_) -> Any:
    """A copy without it."""
    changed = copy.deepcopy(document)
    del at(changed, place[:-1])[place[-1]]
    return changed


def kind(value: Any) -> str:
    """What JSON calls it; whole numbers apart, for a count is none otherwise."""
    names = {bool: "true", int: "whole", float: "number", str: "text", list: "list", dict: "object"}
    return "null" if value is None else names[type(value)]


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes changed, dropped, doubled or put in, or the end cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("change", "drop", "double", "insert", "cut"))):
            case "change":
                data[where : where + 1] = draw(st.binary(min_size=1, max_size=1))
            case "drop":
                del data[where : where + draw(st.integers(1, 200))]
            case "double":
                data[where:where] = data[where : where + draw(st.integers(1, 200))]
            case "insert":
                data[where:where] = draw(st.binary(min_size=1, max_size=8))
            case "cut":
                del data[where:]
    return bytes(data)


@st.composite
def damaged_text(draw: st.DrawFn, whole: str, tokens: tuple[str, ...]) -> str:
    """Words of the text replaced by tokens that mean something to its reader, or tokens put between them."""
    for _ in range(draw(st.integers(1, 3))):
        words = [found.span() for found in re.finditer(r"[\w.]+|[^\w\s]", whole)]
        start, end = draw(st.sampled_from(words)) if words else (0, 0)
        token = draw(st.sampled_from(tokens))
        whole = whole[:start] + token + whole[end if draw(st.booleans()) else start :]
    return whole


@st.composite
def damaged_json(draw: st.DrawFn, document: Any) -> tuple[Any, Path_, str]:
    """(document, place, what was done): one value replaced by a hostile one or taken out."""
    place = draw(st.sampled_from(places(document)))
    if draw(st.booleans()):
        return removed(document, place), place, "removed"
    value = draw(st.sampled_from(HOSTILE))
    return replaced(document, place, value), place, f"replaced by {value!r}"


def text(document: Any) -> str:
    """As one line of JSON, NaN and Infinity as Python writes them."""
    return json.dumps(document)
