"""Stable ids: the same case has the same id in every run, on every machine, after every new axis.

An id is the head of a sha256 over the canonical JSON of the fields that differ from their defaults, presets resolved
to SI values. A new field with a default therefore orphans no baseline; a changed default bumps ``IDENTITY_VERSION``.
"""

import hashlib
import json
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, lru_cache
from typing import Any

from moe_impl.options import Link, Variant, Workload

IDENTITY_VERSION = 1
# History: 1 = first.
ID_LENGTH = 16
MOST_KEPT = 2**16
"""Ids of each kind kept at hand: every stored line asks for some."""


def canonical(value: Any) -> Any:
    """JSON-able form of a frozen dataclass without defaults and without fields that are for people only."""
    if is_dataclass(value):
        kept = {}
        for spec in _identifying(value.__class__):
            item = getattr(value, spec.name)
            if item != default(spec, value):
                kept[spec.name] = canonical(item)
        return kept
    if isinstance(value, (tuple, list)):
        return [canonical(item) for item in value]
    return value


@cache
def _identifying(kind: Any) -> tuple[Field[Any], ...]:
    """Fields of a dataclass that are not for people only."""
    return tuple(spec for spec in fields(kind) if spec.metadata.get("identity", True))


def default(spec: Field[Any], owner: Any) -> Any:
    """A field's default; ``default_of`` in its metadata makes one that depends on the other fields."""
    if "default_of" in spec.metadata:
        return spec.metadata["default_of"](owner)
    return spec.default if spec.default_factory is MISSING else spec.default_factory()


def _digest(*parts: Any) -> str:
    text = json.dumps([IDENTITY_VERSION, *map(canonical, parts)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


@lru_cache(maxsize=MOST_KEPT)
def case_id(workload: Workload, link: Link) -> str:
    """Id of what is compared: everything that is the same on both sides."""
    return _digest(workload, link)


@lru_cache(maxsize=MOST_KEPT)
def variant_id(variant: Variant) -> str:
    """Id of one way to run it."""
    return _digest(variant)
