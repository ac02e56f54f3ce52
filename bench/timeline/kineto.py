"""Read a torch.profiler trace (Kineto's Chrome JSON, plain or gzipped)."""

from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.timeline import graphs
from bench.timeline.json_stream import events
from bench.timeline.model import LATEST_NS, UNKNOWN, Calls, Names, Profile, Ranges, Work, columns

WORK = {"kernel": graphs.KERNEL, "gpu_memcpy": graphs.COPY, "gpu_memset": graphs.SET}
LAUNCHES = {"cuda_runtime", "cuda_driver"}
RANGE = "user_annotation"
WAITING = ("Synchronize", "cudaMemcpy ")
GRAPH_NODE = "graph node id"
CORRELATION, NODE = 6, 7
"""Places in what ``_work`` returns."""
Launch = tuple[int, int, int, int]
"""(start, end, thread, kind of what is launched)."""


def read(path: Path) -> Profile:
    """All GPU work, user annotations and waiting calls.

    Times are microseconds in the file, kept here as whole nanoseconds. A launch is the earliest call of the work's
    correlation id.

    Raises:
        BenchError: no trace, an event without what every trace has, or no GPU work in it.
    """
    names = Names()
    work: list[tuple[int, ...]] = []
    ranges: list[tuple[int, ...]] = []
    waits: list[tuple[int, ...]] = []
    launches: dict[int, Launch] = {}
    nodes: dict[int, int] = {}  # of graphs -> kind of its work
    threads = Names()
    for number, event in enumerate(events(path)):
        category, phase = event.get("cat"), event.get("ph")
        if not isinstance(phase, str):
            raise BenchError(f"{path}: event {number} is damaged: its phase is {phase!r}")
        if phase != "X":
            continue
        try:
            if category in WORK:
                work.append(_work(event, names))
                if work[-1][NODE] != UNKNOWN:
                    nodes[work[-1][NODE]] = WORK[category]
            elif category in LAUNCHES:
                start, end, thread = *_span(event), threads.number(f"{event['pid']}/{event['tid']}")
                _note(launches, event, (start, end, thread, graphs.kind_of(_text(event["name"]))))
                if any(word in event["name"] for word in WAITING):
                    waits.append((start, end, thread, names.number(event["name"])))
            elif category == RANGE:
                domain, _, name = _text(event["name"]).rpartition("/")
                thread = threads.number(f"{event['pid']}/{event['tid']}")
                in_domain = names.number(domain) if domain else UNKNOWN
                ranges.append((*_span(event), thread, names.number(name), in_domain, UNKNOWN, UNKNOWN))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BenchError(f"{path}: event {number} ({category}) is damaged: {error!r}") from error
    if not work:
        raise BenchError(f"{path}: no kernel, copy or set in it: nothing ran on a GPU while it was recorded")
    captured = graphs.captured_at(nodes, _captured_calls(work, launches)) if nodes else {}
    unknown: Launch = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    rows = sorted(
        (*row[:CORRELATION], *launches.get(row[CORRELATION], unknown)[:3], captured.get(row[NODE], UNKNOWN))
        for row in work
    )
    doubts = [] if ranges else ["no range was recorded"]
    replayed = (row for row in work if launches.get(row[CORRELATION], unknown)[3] == graphs.REPLAY)
    doubts += graphs.unmatched(sum(row[NODE] not in captured for row in replayed))
    if not launches:
        doubts.append("no launch was recorded, so nothing can be attributed to a range")
    return Profile(
        f"{path} (torch.profiler)",
        names,
        Work(*columns(rows, 10)),
        Ranges(*columns(sorted(ranges), 7)),
        Calls(*columns(sorted(waits), 4)),
        doubts,
    )


def _captured_calls(work: list[tuple[int, ...]], launches: dict[int, Launch]) -> list[tuple[int, int]]:
    """(start, kind) of the calls that launched nothing, by the threads that replay a graph."""
    ran = {row[CORRELATION] for row in work}
    threads = {launches[row[CORRELATION]][2] for row in work if row[NODE] != UNKNOWN and row[CORRELATION] in launches}
    return [
        (start, kind)
        for correlation, (start, _, thread, kind) in launches.items()
        if correlation not in ran and thread in threads
    ]


def _span(event: dict[str, Any]) -> tuple[int, int]:
    start_us, length_us = _number(event["ts"]), _number(event["dur"])
    start = round(start_us * 1000)
    return start, start + round(length_us * 1000)


def _number(value: Any) -> float:
    """A time in microseconds. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value * 1000 < LATEST_NS / 2:
        raise ValueError(f"{value!r} is no time")
    return value


def _whole(value: Any, at_least: int = 0) -> int:
    """A stream, a device, a number of bytes. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value < LATEST_NS:
        raise ValueError(f"{value!r} is no whole number >= {at_least}")
    return value


def _text(value: Any) -> str:
    """Raises ValueError for what is no text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no name")
    return value


def _work(event: dict[str, Any], names: Names) -> tuple[int, ...]:
    """A row of Work, with the correlation id and the graph's node in place of the launch and of its capture."""
    found = event["args"]
    start, end = _span(event)
    num_bytes = _whole(found.get("bytes", UNKNOWN), at_least=UNKNOWN)
    return (
        start,
        end,
        _whole(found["stream"]),
        _whole(found["device"]),
        names.number(_text(event["name"])),
        num_bytes,
        _whole(found.get("correlation", UNKNOWN), at_least=UNKNOWN),
        _node(found.get(GRAPH_NODE)),
    )


def _node(number: Any) -> int:
    """UNKNOWN for what is no number of a node: 0, and what another version may write."""
    return number if isinstance(number, int) and 0 < number < LATEST_NS else UNKNOWN


def _note(launches: dict[int, Launch], event: dict[str, Any], launch: Launch) -> None:
    correlation = event.get("args", {}).get("correlation")
    if correlation is None:
        return
    known = launches.get(_whole(correlation, at_least=UNKNOWN))
    if known is None or launch[0] < known[0]:
        launches[correlation] = launch
