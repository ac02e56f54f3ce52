"""What a check of the machine found. Data only, torch-free."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"
    """Measures, but something in it should be known or mended."""
    MISSING = "missing"
    """A tool, a library or a permission that some verb needs."""
    UNKNOWN = "unknown"
    """Could not be asked here."""


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    name: str
    state: State
    said: str
    """What was found, for people."""
    data: dict[str, Any] = field(default_factory=dict)
    """The same for scripts: SI, the unit in every name."""
    remedy: str | None = None
    """What to do about it."""
