"""Issue a schedule: the loop that every engine runs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from moe_impl.overlap.lanes import Lanes
from moe_impl.overlap.schedule import Op, Schedule
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

StageBody = Callable[[UbatchState, int], None]
"""Runs one stage of one micro-batch in one layer on the current stream."""

Around = Callable[[int, Op], AbstractContextManager[None]]
"""A context around each op's body, inside its lane: annotation or time stamps."""


def run_inline(
    schedule: Schedule,
    bodies: Mapping[Stage, StageBody],
    states: Sequence[UbatchState],
    lanes: Lanes,
    progress: Callable[[int], None],
    around: Around | None = None,
) -> None:
    """Issue every op from this thread, in order.

    Args:
        bodies: one for each stage in the schedule.
        states: one for each micro-batch.
        progress: called with each op's position before it is issued.
        around: None while timing.
    """
    for position, op in enumerate(schedule.ops):
        progress(position)
        with lanes.issuing(position):
            if around is None:
                bodies[op.stage](states[op.ubatch], op.layer)
            else:
                with around(position, op):
                    bodies[op.stage](states[op.ubatch], op.layer)
