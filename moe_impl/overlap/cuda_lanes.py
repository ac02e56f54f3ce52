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
    """Context of one op: its stream waits, and is current meanwhile; then the op's event is recorded.

    A class, since generators cost microseconds per op. Between ops the compute stream is current, so that compute ops
    switch none: that, too, costs a microsecond.
    """

    __slots__ = ("_back", "_event", "_stream", "_to", "_waits")

    def __init__(
        self,
        stream: torch.cuda.Stream,
        waits: list[torch.cuda.Event],
        event: torch.cuda.Event | None,
        to: torch.cuda.Stream | None,
        back: torch.cuda.Stream | None,
    ) -> None:
        """
        Args:
            stream: the op's.
            to: the same, unless it is current as it is.
            back: the compute stream, unless the op runs there.
        """
        self._stream, self._waits, self._event, self._to, self._back = stream, waits, event, to, back

    def __enter__(self) -> None:
        for event in self._waits:
            event.wait(self._stream)
        if self._to is not None:
            torch.cuda.set_stream(self._to)

    def __exit__(self, raised: type[BaseException] | None, *exc: object) -> None:
        if self._back is not None:
            torch.cuda.set_stream(self._back)
        if self._event is not None and raised is None:
            self._event.record(self._stream)


class StreamLanes:
    """Two streams. Each thread that issues has the compute stream current from its first op on, and after its last."""

    def __init__(self, schedule: Schedule, compute: torch.cuda.Stream, comm_priority: CommPriority = "high") -> None:
        streams = {"compute": compute, "comm": comm_stream(compute.device, comm_priority)}
        events = {position: torch.cuda.Event() for position in awaited_across(schedule)}
        firsts = {positions[0] for positions in schedule.chains.values()}
        self._issues = [
            _Issue(
                stream := streams[op.lane],
                [events[before] for before in awaits(schedule, position)],
                events.get(position),
                to=stream if op.lane == "comm" or position in firsts else None,
                back=compute if op.lane == "comm" else None,
            )
            for position, op in enumerate(schedule.ops)
        ]
        if schedule.ops[-1].lane != "compute":
            raise ValueError("a schedule must end on the compute lane, which the caller waits for")

    def issuing(self, position: int) -> _Issue:
        return self._issues[position]
