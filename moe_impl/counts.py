"""Receive ``exact``: how the host learns how many rows and pairs it received, and waits for them.

On a GPU a notify step on the current (communication) stream writes the counts into pinned memory and the host spins on
it with a deadline: a stream or device synchronisation would drain the other batch's compute, which is to be overlapped.
"""

import time
from typing import Protocol

import torch

from moe_impl.rows import SentRows

DEADLINE_S = 20.0
"""Far beyond any compute that may be queued before the notify step, and short of a hand-over's deadline, which would
otherwise end engine ``threads`` first and name the wrong cause."""
SEQUENCES = 2**15


class CountsOverdueError(RuntimeError):
    """The device did not say its counts in time: it is stuck, or so is a peer."""


class Counts(Protocol):
    """The host's view of what was received."""

    def wait(self, rows: SentRows) -> tuple[int, int]:
        """(rows, pairs) of this micro-batch; the host waits for them.

        Raises:
            CountsOverdueError: they did not come in time.
        """
        ...


class HostCounts:
    """On a CPU the counts are there."""

    def wait(self, rows: SentRows) -> tuple[int, int]:
        return int(rows.num_rows), int(rows.num_pairs)


class PinnedCounts:
    """One pinned word; one wait at a time."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._word = torch.zeros(1, dtype=torch.int64, pin_memory=True)
        self._seen = self._word.numpy()
        self._sequence = 0
        self._deadline_s = deadline_s

    def wait(self, rows: SentRows) -> tuple[int, int]:
        from moe_impl.kernels.notify import COUNT_BITS, notify

        self._sequence = self._sequence % (SEQUENCES - 1) + 1
        notify(rows.num_rows, rows.num_pairs, self._word, self._sequence)
        overdue_s = time.monotonic() + self._deadline_s
        while (word := int(self._seen[0])) >> (2 * COUNT_BITS) != self._sequence:
            if time.monotonic() > overdue_s:
                raise CountsOverdueError(f"no receive counts within {self._deadline_s:g} s")
        mask = (1 << COUNT_BITS) - 1
        return (word >> COUNT_BITS) & mask, word & mask


def counts_for(device: torch.device) -> Counts:
    """Pinned memory on a GPU, plain numbers on a CPU."""
    return PinnedCounts() if device.type == "cuda" else HostCounts()
