"""Write attributed work as a Chrome trace: ui.perfetto.dev shows a track for each stream and micro-batch, by stage.

One process a run, one track a stream and micro-batch, and one track of its exposed communication. Slices of a track
never overlap: work that would (a graph's branches on one stream) goes to another track of the same name and a number.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.errors import BenchError
from bench.timeline.attribute import LANES, Attributed
from bench.timeline.metrics import exposed_comm
from bench.timeline.model import UNKNOWN

UNNAMED = "GPU work"
EXPOSED = "exposed communication"
LANE_NAMES = {number: name for name, number in LANES.items()}
Track = tuple[int, int, int]
"""(device, stream, micro-batch)."""


def write(runs: Iterable[tuple[str, Attributed]], path: Path) -> None:
    """Write a profile's runs (bench.timeline.analysis.runs_of), event by event; gzipped where the name ends in .gz.

    Times are microseconds from the first start of them all.

    Raises:
        BenchError: the file cannot be written.
    """
    runs = list(runs)
    begin = min(int(found.profile.work.start_ns.min()) for _, found in runs)
    try:
        with _opened(path) as file:
            file.write('{"displayTimeUnit": "ms", "traceEvents": [')
            comma = "\n"
            for process, (name, found) in enumerate(runs, 1):
                for event in _events(process, name, found, begin):
                    file.write(comma + event)
                    comma = ",\n"
            file.write("\n]}\n")
    except OSError as error:
        raise BenchError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        yield file  # type: ignore[misc]


def _events(process: int, name: str, found: Attributed, begin: int) -> Iterator[str]:
    yield _named(process, 0, "process_name", name or UNNAMED)
    work = found.profile.work
    exposed = exposed_comm(work, found.lane)
    if len(exposed):
        yield _named(process, 0, "thread_name", EXPOSED)
        for start, end in zip(exposed.start_ns.tolist(), exposed.end_ns.tolist(), strict=True):
            yield _slice(process, 0, "exposed", start - begin, end - start, {})
    several = len(np.unique(work.device)) > 1
    tracks: dict[Track, list[tuple[int, int]]] = {}
    """Track -> (number, busy until) of it and of those beside it."""
    count = 0
    for row in np.argsort(work.start_ns, kind="stable").tolist():
        start, end = int(work.start_ns[row]), int(work.end_ns[row])
        track = (int(work.device[row]), int(work.stream[row]), int(found.ubatch[row]))
        beside = tracks.setdefault(track, [])
        place = next((i for i, (_, busy_until) in enumerate(beside) if busy_until <= start), len(beside))
        if place == len(beside):
            count += 1
            beside.append((count, end))
            yield _named(process, count, "thread_name", _track_name(track, place, several=several))
            yield _named(process, count, "thread_sort_index", count)
        number = beside[place][0]
        beside[place] = (number, end)
        kernel = found.profile.names.text(int(work.name[row]))
        stage = found.stage_names.text(int(found.stage[row]))
        yield _slice(process, number, stage or kernel, start - begin, end - start, _arguments(found, row, kernel))


def _track_name(track: Track, place: int, *, several: bool) -> str:
    device, stream, ubatch = track
    parts = [f"device {device}"] if several else []
    parts += [f"stream {stream}", f"ubatch {ubatch}" if ubatch != UNKNOWN else "no ubatch"]
    return ", ".join(parts) + (f" ({place + 1})" if place else "")


def _arguments(found: Attributed, row: int, kernel: str) -> dict[str, Any]:
    """What is known of one piece of work."""
    work = found.profile.work
    numbers = {
        "iteration": found.iteration[row],
        "layer": found.layer[row],
        "ubatch": found.ubatch[row],
        "bytes": work.bytes[row],
    }
    lane = LANE_NAMES.get(int(found.lane[row]))
    return {
        "kernel": kernel,
        **({"lane": lane} if lane else {}),
        **{key: int(value) for key, value in numbers.items() if value != UNKNOWN},
    }


def _named(process: int, thread: int, what: str, value: str | int) -> str:
    key = "sort_index" if what.endswith("sort_index") else "name"
    return json.dumps({"ph": "M", "pid": process, "tid": thread, "name": what, "args": {key: value}})


def _slice(process: int, thread: int, name: str, start_ns: int, length_ns: int, told: dict[str, Any]) -> str:
    head = json.dumps({"ph": "X", "pid": process, "tid": thread, "name": name, "args": told})
    return f'{head[:-1]}, "ts": {_microseconds(start_ns)}, "dur": {_microseconds(length_ns)}}}'


def _microseconds(nanoseconds: int) -> str:
    """Exact: a float would round."""
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"
