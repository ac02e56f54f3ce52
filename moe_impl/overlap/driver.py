"""Issue a schedule: what every engine does with an op, and the plain loop of ``serial`` and ``streams``."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from moe_impl.overlap.lanes import Lanes
from moe_impl.overlap.schedule import Op, Schedule
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

StageBody = Callable[[UbatchState, int], None]
"""Runs one stage of one micro-batch in one layer on the current stream."""

Around = Callable[[int, Op], AbstractContextManager[None]]
"""A context around each op's body, inside its lane: annotation or time stamps."""


@dataclass(frozen=True)
class Run:
    """One run of a schedule: what is issued, where, and who is told."""

    schedule: Schedule
    bodies: Mapping[Stage, StageBody]
    """One for each stage in the schedule."""
    states: Sequence[UbatchState]
    """One for each micro-batch."""
    lanes: Lanes
    progress: Callable[[int], None]
    """Called with each op's position before it is issued."""
    around: Around | None = None
    """None while timing."""

    def issue(self, position: int) -> None:
        """Issue one op from this thread."""
        op = self.schedule.ops[position]
        self.progress(position)
        with self.lanes.issuing(position):
            if self.around is None:
                self.bodies[op.stage](self.states[op.ubatch], op.layer)
            else:
                with self.around(position, op):
                    self.bodies[op.stage](self.states[op.ubatch], op.layer)


def run_inline(run: Run) -> None:
    """Issue every op from this thread, in order."""
    for position in range(len(run.schedule.ops)):
        run.issue(position)
