"""Lanes: where a schedule's ops run. They order ops across lanes and know no stage body."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from moe_impl.overlap.schedule import Schedule


class Lanes(Protocol):
    """Gives each op its place, and makes it wait for the ops it depends on."""

    def issuing(self, position: int) -> AbstractContextManager[None]:
        """The context in which the op at this position of the schedule is issued."""
        ...


class OneLane:
    """One stream (or the CPU): issue order is execution order, so nothing needs to wait."""

    def issuing(self, position: int) -> AbstractContextManager[None]:
        return nullcontext()


def awaits(schedule: Schedule, position: int) -> tuple[int, ...]:
    """Positions of the ops on another lane for which this op must be made to wait; its own lane keeps issue order."""
    ops = schedule.ops
    return tuple(before for before in ops[position].after if ops[before].lane != ops[position].lane)


def awaited_across(schedule: Schedule) -> frozenset[int]:
    """Positions of ops that some op on another lane depends on: those that need an event."""
    return frozenset(before for position in range(len(schedule.ops)) for before in awaits(schedule, position))
