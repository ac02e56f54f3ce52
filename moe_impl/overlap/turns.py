"""Turns: which of several host threads may issue ops, and how one hands over to another. Torch-free.

The hand-over is FastDeploy's ``let_another_thread_run()`` (PR #7259): wake the peer, wait for one's own turn. New here
are the ends that it lacks: a deadline on every wait, and a stop that wakes all. One object serves one run.

What wakes is an item in a ``SimpleQueue``, which is written in C. A ``threading.Event`` is Python: a taker that wakes
while the giver is still in it must wait for the interpreter, too.
"""

import threading
import time
from queue import Empty, SimpleQueue
from typing import NamedTuple

from moe_impl.overlap.schedule import Schedule

DEADLINE_S = 30.0
"""How long a micro-batch may keep its turn. Issuing takes milliseconds; a first run may compile kernels."""

LOOK_S = 0.1
"""A signal that comes while its thread is about to wait is seen when that wait ends: none is longer than this."""


class StoppedError(Exception):
    """The run is over for this thread: a peer raised, got stuck, or the caller left."""


class HandOver(NamedTuple):
    """One entry of the yield-order trace."""

    giver: int
    """The micro-batch that issued ``position`` and then handed over."""
    taker: int
    position: int
    at_s: float
    """Seconds since the run began."""


class HandOverTimeoutError(TimeoutError):
    """A micro-batch kept its turn beyond the deadline.

    The first line says who waited for whom since when; the hand-overs so far follow, one a line.

    Attributes:
        holder: the micro-batch that has the turn.
        waiting: {micro-batch: seconds since the run began at which it began to wait}.
        hand_overs: the trace, in order.
    """

    def __init__(self, message: str, holder: int, waiting: dict[int, float], hand_overs: tuple[HandOver, ...]) -> None:
        super().__init__(message)
        self.holder, self.waiting, self.hand_overs = holder, waiting, hand_overs


class Turns:
    """Exactly one micro-batch has the turn; each is waited for by its own thread, the whole run by the caller."""

    def __init__(self, schedule: Schedule, deadline_s: float = DEADLINE_S) -> None:
        self._schedule = schedule
        self._deadline_s = deadline_s
        self._own: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(schedule.num_ubatches)]
        self._over: SimpleQueue[None] = SimpleQueue()
        self._ending = threading.Lock()
        self._waiting: dict[int, float] = {}
        self._position: int | None = None
        self.holder = schedule.ops[0].ubatch
        self.hand_overs: list[HandOver] = []
        self.stopped = False
        self.failure: BaseException | None = None
        """What stopped the run, by the first thread that met it."""
        self.failed_at: int | None = None
        """Position of the op that raised ``failure``; None where it is no op's."""
        self._began_s = self._turn_began_s = time.monotonic()

    def begin(self) -> None:
        """Give the first micro-batch the turn."""
        self._turn_began_s = time.monotonic()
        self._own[self.holder].put(None)

    def take(self, ubatch: int) -> None:
        """Wait for the turn.

        Raises:
            StoppedError: the run was stopped meanwhile.
            HandOverTimeoutError: another micro-batch kept its turn too long.
        """
        self._waiting[ubatch] = time.monotonic()
        self._await(self._own[ubatch])
        del self._waiting[ubatch]
        self._check()

    def issuing(self, position: int) -> None:
        """Note which op comes next.

        Raises:
            StoppedError: the run was stopped meanwhile.
        """
        self._check()
        self._position = position

    def hand_over(self, position: int, taker: int) -> None:
        """Give the turn to ``taker``, after the op at ``position``.

        Raises:
            StoppedError: the run was stopped meanwhile.
        """
        self._check()
        now = time.monotonic()
        self.hand_overs.append(HandOver(self.holder, taker, position, now - self._began_s))
        self.holder, self._turn_began_s = taker, now
        self._own[taker].put(None)

    def finish(self) -> None:
        """The last op was issued."""
        self._over.put(None)

    def stop(self, failure: BaseException | None = None, position: int | None = None) -> None:
        """End the run: every wait ends at once, no further op is issued. The first failure is the one that counts."""
        with self._ending:
            if self.failure is None:
                self.failure, self.failed_at = failure, position
            self.stopped = True
        for wake in (*self._own, self._over):
            wake.put(None)

    def await_end(self) -> None:
        """The caller's wait, until :meth:`finish` or :meth:`stop`.

        Raises:
            HandOverTimeoutError: a micro-batch kept its turn too long.
        """
        self._await(self._over)

    def _check(self) -> None:
        if self.stopped:
            raise StoppedError

    def _await(self, wake: SimpleQueue[None]) -> None:
        """The deadline is the turn's, not the wait's: with many micro-batches a wait is as long as all other turns."""
        while True:
            expires_s = self._turn_began_s + self._deadline_s
            try:
                return wake.get(timeout=min(LOOK_S, max(0.0, expires_s - time.monotonic())))
            except Empty:
                if time.monotonic() >= expires_s == self._turn_began_s + self._deadline_s:
                    raise self._overdue() from None

    def _overdue(self) -> HandOverTimeoutError:
        now = time.monotonic()
        waiting = {ubatch: since - self._began_s for ubatch, since in sorted(self._waiting.copy().items())}
        trace = tuple(self.hand_overs)
        who = " and ".join(f"micro-batch {u} (since {at_s:.3f} s)" for u, at_s in waiting.items()) or "the caller"
        last = "no op" if self._position is None else str(self._schedule.ops[self._position])
        said = (
            f"{who} waited for micro-batch {self.holder}, which has kept its turn for {now - self._turn_began_s:.3g} s"
            f" (since {self._turn_began_s - self._began_s:.3f} s; limit {self._deadline_s:g} s), last op issued: {last}"
        )
        lines = [f"{h.at_s:.6f} s: {h.giver} > {h.taker} after {self._schedule.ops[h.position]}" for h in trace]
        return HandOverTimeoutError("\n".join([said, *lines]), self.holder, waiting, trace)
