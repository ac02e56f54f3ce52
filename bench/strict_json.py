"""JSON whose objects hold each key once."""

from collections import Counter
from typing import Any


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads``, which would keep the last of two values without a word. Raises ValueError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise ValueError(f"key {twice!r} twice in one object")
    return found
