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


def awaited_across(schedule: Schedule) -> frozenset[int]:
    """Positions of ops that some op on another lane depends on: those that need an event."""
    ops = schedule.ops
    return frozenset(before for op in ops for before in op.after if ops[before].lane != op.lane)
