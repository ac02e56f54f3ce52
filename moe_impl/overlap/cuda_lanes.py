"""Lanes on a GPU: the caller's stream for compute, a stream of its own for communication, events between them."""

import functools

import torch

from moe_impl.options import CommPriority
from moe_impl.overlap.lanes import awaited_across, awaits
from moe_impl.overlap.schedule import Schedule

PRIORITY: dict[CommPriority, int] = {"high": -1, "default": 0}
"""CUDA's numbers. High: waiting communication CTAs get the next free SM. Default is the compute lane's, and the lowest
there is: of two lanes that wait, neither goes first."""


@functools.cache
def comm_stream(device: torch.device, priority: CommPriority) -> torch.cuda.Stream:
    """One for all variants of a process, so that none differs by the hardware queue that its own stream came upon."""
    return torch.cuda.Stream(device=device, priority=PRIORITY[priority])


class _Issue:
    """Context of one op: waits, switches stream, records. A class, since generators cost microseconds per op."""

    __slots__ = ("_compute", "_event", "_stream", "_waits")

    def __init__(
        self,
        stream: torch.cuda.Stream,
        waits: list[torch.cuda.Event],
        event: torch.cuda.Event | None,
        compute: torch.cuda.Stream,
    ) -> None:
        self._stream, self._waits, self._event, self._compute = stream, waits, event, compute

    def __enter__(self) -> None:
        for event in self._waits:
            self._stream.wait_event(event)
        torch.cuda.set_stream(self._stream)

    def __exit__(self, raised: type[BaseException] | None, *exc: object) -> None:
        if raised is not None:
            torch.cuda.set_stream(self._compute)  # no later op will switch back
            return
        if self._event is not None:
            self._event.record(self._stream)


class StreamLanes:
    """Two streams. Leaves the compute stream current after every schedule, since its last op runs there."""

    def __init__(self, schedule: Schedule, compute: torch.cuda.Stream, comm_priority: CommPriority = "high") -> None:
        streams = {"compute": compute, "comm": comm_stream(compute.device, comm_priority)}
        events = {position: torch.cuda.Event() for position in awaited_across(schedule)}
        self._issues = [
            _Issue(
                streams[op.lane],
                [events[before] for before in awaits(schedule, position)],
                events.get(position),
                compute,
            )
            for position, op in enumerate(schedule.ops)
        ]
        if schedule.ops[-1].lane != "compute":
            raise ValueError("a schedule must end on the compute lane, which the caller waits for")

    def issuing(self, position: int) -> _Issue:
        return self._issues[position]
