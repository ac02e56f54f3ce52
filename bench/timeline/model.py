"""One model of a profile, whichever tool made it: columns of numpy, for a profile may hold a million kernels.

Times are nanoseconds of the profile's own clock. -1 (a name, a payload, a launch) means unknown, never 0.
"""

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.int64]
UNKNOWN = -1
LATEST_NS = 2**62
"""No clock of a profiler is there before 2116, and sums of differences below it fit int64."""


class Names:
    """Strings by number, each kept once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """The number of a text, a new one where it is new."""
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return found

    def text(self, number: int) -> str:
        """The empty text for UNKNOWN."""
        return self.texts[number] if number >= 0 else ""


@dataclass(eq=False)
class Work:
    """What ran on the GPU: kernels, copies, sets. One row each; all columns are of one length."""

    start_ns: Column
    end_ns: Column
    stream: Column
    device: Column
    name: Column
    bytes: Column
    """Of copies and sets."""
    launch_ns: Column
    """When the host began to launch it."""
    launched_ns: Column
    """When that call returned."""
    thread: Column
    """The host thread that launched it."""
    captured_ns: Column
    """When that thread issued it into the graph of which this is a replay; UNKNOWN where it was launched by itself."""

    def __len__(self) -> int:
        return len(self.start_ns)

    def take(self, chosen: NDArray[np.bool_] | Column) -> "Work":
        """The same columns of some rows."""
        return Work(**{spec.name: getattr(self, spec.name)[chosen] for spec in fields(self)})


@dataclass(eq=False)
class Ranges:
    """Named ranges of host threads. On one thread they nest."""

    start_ns: Column
    end_ns: Column
    thread: Column
    name: Column
    domain: Column
    category: Column
    payload: Column

    def __len__(self) -> int:
        return len(self.start_ns)


@dataclass(eq=False)
class Calls:
    """Host calls that wait for the GPU: what can keep a thread from launching."""

    start_ns: Column
    end_ns: Column
    thread: Column
    name: Column

    def __len__(self) -> int:
        return len(self.start_ns)


@dataclass(eq=False)
class Profile:
    """A profile as read, before anything is attributed."""

    source: str
    """File and tool, for people."""
    names: Names
    work: Work
    ranges: Ranges
    waits: Calls
    doubts: list[str] = field(default_factory=list)
    """What the reader could not know, in words."""


def columns(rows: list[tuple[int, ...]], width: int) -> list[Column]:
    """Rows of whole numbers to ``width`` columns."""
    table = np.array(rows, dtype=np.int64).reshape(len(rows), width)
    return [np.ascontiguousarray(table[:, i]) for i in range(width)]
