"""How the processes of a sweep, one a rank, agree: each may run only what all run, in the same order. Torch-free.

A collective waits for every rank, so a rank that stopped, skipped or warmed up by its own clock would leave the others
waiting. Whatever decides what runs next is therefore either the same on all ranks by construction (the job) or asked
here.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from bench.results import Memory

BACKEND = {"cuda": "nccl", "cpu": "gloo"}
"""What moves rows between ranks, by device."""

Value = TypeVar("Value")


def slowest_of(of_ranks: Sequence[Sequence[float]]) -> list[float]:
    """Elementwise the largest, from each rank's values."""
    return [max(values) for values in zip(*of_ranks, strict=True)]


class Peers(ABC):
    """This process's view of its group. Every call waits until all ranks have made it."""

    rank: int
    size: int

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, by rank. The values are pickled."""

    @abstractmethod
    def first(self, value: float) -> float:
        """Rank 0's value."""

    @abstractmethod
    def align(self) -> None:
        """Wait for this rank's device and for all ranks, so that what follows begins together.

        The ranks leave it within some 0.1 ms of each other: a late one's peers wait for it in their next collective.
        """

    def slowest(self, seconds: Sequence[float]) -> list[float]:
        """Elementwise the largest over ranks."""
        return slowest_of(self.gather(list(seconds)))

    def agree(self, ok: bool) -> bool:
        """Whether it holds on all ranks."""
        return all(self.gather(ok))

    def complaint(self, mine: str | None) -> str | None:
        """The first rank's that has one, and which rank it is where there are several; None where none has."""
        for rank, said in enumerate(self.gather(mine)):
            if said is not None:
                return said if self.size == 1 else f"rank {rank} {said}"
        return None

    def most(self, memory: Memory | None) -> Memory | None:
        """Of each kind the most that any rank has; None where the device reports none."""
        known = [found for found in self.gather(memory) if found is not None]
        if not known:
            return None
        return Memory(
            max(found.peak_bytes for found in known),
            max(found.activations_bytes for found in known),
            max(found.retained_bytes for found in known),
        )


class Alone(Peers):
    """One process: it agrees with itself, at no cost."""

    rank, size = 0, 1

    def gather(self, value: Value) -> list[Value]:
        return [value]

    def first(self, value: float) -> float:
        return value

    def align(self) -> None:
        """There is no one to wait for."""


ALONE = Alone()
