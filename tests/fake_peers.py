"""A rank without processes: what the other rank of two says is made from what this one says."""

from collections.abc import Callable
from typing import Any

from bench.measure.peers import Peers, Value


class FakePeers(Peers):
    """Rank 0 of two, unless told otherwise.

    Attributes:
        calls: what was asked of the group, in order; a test may add its own words.
    """

    def __init__(self, other: Callable[[Any], Any], rank: int = 0, firsts: Callable[[float], float] = float) -> None:
        """
        Args:
            other: this rank's value -> the other's.
            firsts: this rank's value -> what rank 0 says.
        """
        self.rank, self.size = rank, 2
        self._other, self._firsts = other, firsts
        self.calls: list[str] = []

    def gather(self, value: Value) -> list[Value]:
        self.calls.append("gather")
        values = [value, self._other(value)]
        return values if self.rank == 0 else values[::-1]

    def first(self, value: float) -> float:
        self.calls.append("first")
        return self._firsts(value)

    def align(self) -> None:
        self.calls.append("align")
