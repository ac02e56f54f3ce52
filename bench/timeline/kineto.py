"""Read a torch.profiler trace (Kineto's Chrome JSON, plain or gzipped)."""

from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.timeline import graphs
from bench.timeline.json_stream import events
from bench.timeline.model import LATEST_NS, UNKNOWN, Calls, Names, Profile, Ranges, Work, columns

WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
LAUNCHES = {"cuda_runtime", "cuda_driver"}
RANGE = "user_annotation"
WAITING = ("Synchronize", "cudaMemcpy ")
STREAM, NAME, CORRELATION = 2, 4, 6
"""Places in what ``_work`` returns."""
Launch = tuple[int, int, int, int]
"""(start, end, thread, kind of what is launched)."""
THREAD, KIND = 2, 3


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
    work.sort()
    unknown: Launch = (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    launched = [launches.get(row[CORRELATION], unknown) for row in work]
    replays: dict[int, list[int]] = {}  # correlation id -> its work
    for place, launch in enumerate(launched):
        if launch[KIND] == graphs.REPLAY:
            replays.setdefault(work[place][CORRELATION], []).append(place)
    captured = [UNKNOWN] * len(work)
    if replays:
        issued = _issued(work, launched, [span[:3] for span in ranges if names.text(span[3]) == graphs.AS_ISSUED])
        by_name = graphs.captured_by_name(issued, _captured_calls(work, launches, {launches[each] for each in replays}))
        for places in replays.values():
            found = graphs.in_capture_order([work[place][NAME] for place in places], by_name)
            for place, start in zip(places, found, strict=True):
                captured[place] = start
    rows = [
        (*row[:CORRELATION], *launch[:KIND], start) for row, launch, start in zip(work, launched, captured, strict=True)
    ]
    doubts = [] if ranges else ["no range was recorded"]
    doubts += graphs.unmatched(sum(captured[place] == UNKNOWN for places in replays.values() for place in places))
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


def _issued(
    work: list[tuple[int, ...]], launched: list[Launch], spans: list[tuple[int, ...]]
) -> list[tuple[int, int, int, int]]:
    """(start, kind, name, stream) of the work that was launched in one of the spans (start, end, thread)."""
    return [
        (start, kind, row[NAME], row[STREAM])
        for row, (start, _, thread, kind) in zip(work, launched, strict=True)
        if any(begin <= start <= end and thread == of for begin, end, of in spans)
    ]


def _captured_calls(
    work: list[tuple[int, ...]], launches: dict[int, Launch], replays: set[Launch]
) -> list[tuple[int, int]]:
    """(start, kind) of the calls that launched nothing, by the threads that replay a graph."""
    ran = {row[CORRELATION] for row in work}
    threads = {launch[THREAD] for launch in replays}
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
    """A row of Work, with the correlation id in place of the launch and of its capture."""
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
    )


def _note(launches: dict[int, Launch], event: dict[str, Any], launch: Launch) -> None:
    correlation = event.get("args", {}).get("correlation")
    if correlation is None:
        return
    known = launches.get(_whole(correlation, at_least=UNKNOWN))
    if known is None or launch[0] < known[0]:
        launches[correlation] = launch
