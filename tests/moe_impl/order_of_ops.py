"""Which ops of a schedule are over before which others begin, whatever takes how long: what lanes guarantee."""

from moe_impl.overlap.lanes import awaits
from moe_impl.overlap.schedule import Schedule
from moe_impl.stages import Lane

LANES: tuple[Lane, ...] = ("compute", "comm")

Edge = tuple[int, int]
"""Positions of two ops on different lanes, the second of which awaits the first."""


def ancestors(schedule: Schedule, without: frozenset[Edge] = frozenset()) -> list[set[int]]:
    """What is over before each op begins, whatever the delays.

    It follows the one before it on its lane, what it is made to wait for, and, as the host then issues nothing, what
    was over before an earlier op that held the host could begin.
    """
    last: dict[Lane, int] = {}
    found: list[set[int]] = []
    held: set[int] = set()
    for position, op in enumerate(schedule.ops):
        direct = {before for before in awaits(schedule, position) if (before, position) not in without}
        direct |= {last[op.lane]} if op.lane in last else set()
        found.append(direct.union(held, *(found[before] for before in direct)))
        if position in schedule.host_waits:
            held = held | found[position]
        last[op.lane] = position
    return found


def edges_across(schedule: Schedule) -> list[Edge]:
    return [(before, after) for after in range(len(schedule.ops)) for before in awaits(schedule, after)]


def needed_edges(schedule: Schedule) -> list[Edge]:
    """Of :func:`edges_across`, those of the transitive reduction: without one its two ops are in no order."""
    return [
        (before, after)
        for before, after in edges_across(schedule)
        if before not in ancestors(schedule, frozenset({(before, after)}))[after]
    ]
