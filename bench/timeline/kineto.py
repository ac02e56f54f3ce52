"""Read a torch.profiler trace (Kineto's Chrome JSON, plain or gzipped)."""

from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.timeline.json_stream import events
from bench.timeline.model import UNKNOWN, Calls, Names, Profile, Ranges, Work, columns

WORK = {"kernel", "gpu_memcpy", "gpu_memset"}
LAUNCHES = {"cuda_runtime", "cuda_driver"}
RANGE = "user_annotation"
WAITING = ("Synchronize", "cudaMemcpy ")


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
    launches: dict[int, tuple[int, int, int]] = {}
    threads = Names()
    for number, event in enumerate(events(path)):
        category = event.get("cat")
        if event.get("ph") != "X":
            continue
        try:
            if category in WORK:
                work.append(_work(event, names))
            elif category in LAUNCHES:
                start, end, thread = *_span(event), threads.number(f"{event['pid']}/{event['tid']}")
                _note(launches, event, (start, end, thread))
                if any(word in event["name"] for word in WAITING):
                    waits.append((start, end, thread, names.number(event["name"])))
            elif category == RANGE:
                domain, _, name = event["name"].rpartition("/")
                thread = threads.number(f"{event['pid']}/{event['tid']}")
                in_domain = names.number(domain) if domain else UNKNOWN
                ranges.append((*_span(event), thread, names.number(name), in_domain, UNKNOWN, UNKNOWN))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BenchError(f"{path}: event {number} ({category}) is damaged: {error!r}") from error
    if not work:
        raise BenchError(f"{path}: no kernel, copy or set in it: nothing ran on a GPU while it was recorded")
    unknown = (UNKNOWN, UNKNOWN, UNKNOWN)
    rows = sorted((*row[:-1], *launches.get(row[-1], unknown)) for row in work)
    doubts = [] if ranges else ["no range was recorded"]
    if not launches:
        doubts.append("no launch was recorded, so nothing can be attributed to a range")
    return Profile(
        f"{path} (torch.profiler)",
        names,
        Work(*columns(rows, 9)),
        Ranges(*columns(sorted(ranges), 7)),
        Calls(*columns(sorted(waits), 4)),
        doubts,
    )


def _span(event: dict[str, Any]) -> tuple[int, int]:
    start = round(float(event["ts"]) * 1000)
    return start, start + round(float(event.get("dur", 0)) * 1000)


def _work(event: dict[str, Any], names: Names) -> tuple[int, ...]:
    """A row of Work, with the correlation id in place of the launch."""
    found = event["args"]
    start, end = _span(event)
    num_bytes = int(found.get("bytes", UNKNOWN))
    return (
        start,
        end,
        int(found["stream"]),
        int(found["device"]),
        names.number(event["name"]),
        num_bytes,
        int(found.get("correlation", UNKNOWN)),
    )


def _note(launches: dict[int, tuple[int, int, int]], event: dict[str, Any], launch: tuple[int, int, int]) -> None:
    correlation = event.get("args", {}).get("correlation")
    if correlation is None:
        return
    known = launches.get(int(correlation))
    if known is None or launch[0] < known[0]:
        launches[int(correlation)] = launch
