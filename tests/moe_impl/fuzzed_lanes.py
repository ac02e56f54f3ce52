"""Lanes whose ops run later, as on two CUDA streams, but on a CPU: a host thread each, with delays before any op.

What a lane enforces is what ``StreamLanes`` enforces: its own issue order, and ``awaits`` across lanes. Everything else
is up to the delays. An op that is not made to wait for what it reads then finds it missing or poisoned.
"""

import math
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from order_of_ops import LANES, Edge
from torch import Tensor

from moe_impl.overlap.driver import StageBody
from moe_impl.overlap.lanes import awaits
from moe_impl.overlap.schedule import Op, Schedule
from moe_impl.stages import Lane, Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import VariantRun

PATIENCE_S = 20.0
"""Far over any run here: what lasts longer waits for itself."""
HOLD = math.inf
"""A delay for as long as the other lane gets anything done."""


class FuzzedLanes:
    """Serves one run. Drivers issue into it as into any lanes; :meth:`deferred` makes the bodies that they issue."""

    def __init__(
        self, schedule: Schedule, delays_s: Sequence[float], longest_s: float, without: frozenset[Edge] = frozenset()
    ) -> None:
        """
        Args:
            delays_s: how long each op's lane idles before it, in the schedule's order; or ``HOLD``.
            longest_s: of the schedule's ops.
            without: pairs of :func:`awaits` that are left out.
        """
        self._schedule = schedule
        self._delays_s = delays_s
        self._quiet_s = 4 * longest_s
        self._waits = [
            [before for before in awaits(schedule, position) if (before, position) not in without]
            for position in range(len(schedule.ops))
        ]
        self._begun = [threading.Event() for _ in schedule.ops]
        self._done = [threading.Event() for _ in schedule.ops]
        self._position = -1
        self._failure: BaseException | None = None
        self._queues: dict[Lane, queue.SimpleQueue[tuple[int, StageBody, UbatchState, int] | None]] = {
            lane: queue.SimpleQueue() for lane in LANES
        }
        self._threads = [threading.Thread(target=self._work, args=(lane,), daemon=True) for lane in LANES]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def issuing(self, position: int) -> Iterator[None]:
        self._position = position
        yield
        if position in self._schedule.host_waits and not self._begun[position].wait(PATIENCE_S):
            raise TimeoutError(f"the host waited for {self._schedule.ops[position]}")

    def deferred(self, bodies: Mapping[Stage, StageBody]) -> dict[Stage, StageBody]:
        """Bodies that queue these ones on the lane of the op that is being issued."""

        def queued(body: StageBody) -> StageBody:
            def issue(state: UbatchState, layer: int) -> None:
                op = self._schedule.ops[self._position]
                self._queues[op.lane].put((self._position, body, state, layer))

            return issue

        return {stage: queued(body) for stage, body in bodies.items()}

    def synchronize(self) -> None:
        """Wait for both lanes, and raise what the first op that failed raised."""
        for lane in LANES:
            self._queues[lane].put(None)
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
            if thread.is_alive():
                raise TimeoutError("a lane does not end")
        if self._failure is not None:
            raise self._failure

    def _work(self, lane: Lane) -> None:
        while (item := self._queues[lane].get()) is not None:
            position, body, state, layer = item
            if self._failure is None:
                try:
                    self._run(position, body, state, layer)
                except BaseException as error:
                    self._failure = self._failure or error
            self._begun[position].set()
            self._done[position].set()

    def _run(self, position: int, body: StageBody, state: UbatchState, layer: int) -> None:
        for before in self._waits[position]:
            if not self._done[before].wait(PATIENCE_S):
                raise TimeoutError(f"{self._schedule.ops[position]} waited for {self._schedule.ops[before]}")
        self._begun[position].set()  # what holds the host lets it go here: the transfer itself may last
        if self._delays_s[position] == HOLD:
            self._hold()
        elif self._delays_s[position]:
            time.sleep(self._delays_s[position])
        body(state, layer)

    def _hold(self) -> None:
        """Idle for as long as anything gets done, which is then on the other lane."""
        seen = -1
        while (done := sum(event.is_set() for event in self._done)) != seen:
            seen = done
            time.sleep(self._quiet_s)


def run_fuzzed(run: VariantRun, lanes: FuzzedLanes) -> Tensor:
    """One iteration of a variant, by its own driver, on these lanes."""
    run._lanes = lanes
    try:
        states = run._run(lanes.deferred(run._stages.bodies), None)
    finally:
        lanes.synchronize()
    return run._final(states)


def longest_op_s(run: VariantRun) -> float:
    """Of the variant's ops, alone on one lane; the shortest of three runs, since the machine is not alone."""
    shortest = [float("inf")] * len(run.schedule.ops)

    @contextmanager
    def timing(position: int, op: Op) -> Iterator[None]:
        began_s = time.perf_counter()
        yield
        shortest[position] = min(shortest[position], time.perf_counter() - began_s)

    for _ in range(3):
        run(timing)
    return max(shortest)


def draw_delays(schedule: Schedule, longest_s: float, draw: random.Random) -> list[float]:
    """Short ones before none, half or all of a lane's ops, or ``HOLD`` before a few neighbours on one lane.

    Short is two to four times the longest op.
    """
    lanes = [op.lane for op in schedule.ops]
    if draw.random() < 0.5:
        density = {lane: draw.choice((0.0, 0.5, 1.0)) for lane in LANES}
        return [longest_s * draw.uniform(2, 4) if draw.random() < density[lane] else 0.0 for lane in lanes]
    slow = draw.choice(LANES)
    places = [position for position, lane in enumerate(lanes) if lane == slow]
    begin = draw.randrange(len(places))
    delayed = places[begin : begin + draw.randint(1, 3)]
    return [HOLD if position in delayed else 0.0 for position in range(len(lanes))]
