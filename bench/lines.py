"""The lines of results.jsonl as Trials, those of a large file read by several processes at once."""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import forked
from bench.quick_record import QuickReader
from bench.results import Trial

CHUNK_BYTES = 2**22
LARGE_BYTES = 2**25
"""Below this one process reads a file sooner than several can be started."""
CASE_ID = re.compile(rb'"case_id":"([0-9a-f]+)"')


def is_large(path: Path) -> bool:
    """Whether several processes read it sooner than one."""
    return path.stat().st_size >= LARGE_BYTES


def read(path: Path, times_only: bool) -> Iterator[Trial | bytes]:
    """Each whole line in order: its Trial, or its bytes where only bench.results.from_record can say what it is."""
    for found in (forked.each if is_large(path) else map)(partial(_read_chunk, path, times_only), _chunks(path)):
        yield from found


class Line(NamedTuple):
    """Where a line is in its file."""

    number: int
    """From 1."""
    start: int
    """Its first byte."""
    length: int


def by_case(path: Path) -> dict[bytes, list[Line]]:
    """Text of a case id -> the whole lines that hold it, in order and unparsed. Each is somewhere, whatever it is."""
    found: dict[bytes, list[Line]] = {}
    start = 0
    with path.open("rb", buffering=CHUNK_BYTES) as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                named = CASE_ID.search(line)
                found.setdefault(named[1] if named else _in_another_form(line), []).append(
                    Line(number, start, len(line) - 1)
                )
            start += len(line)
    return found


def _in_another_form(line: bytes) -> bytes:
    """The case id of a line that no sweep wrote."""
    try:
        return str(json.loads(line)["case_id"]).encode()
    except (ValueError, RecursionError, TypeError, KeyError):
        return b""


def read_some(path: Path, some: Sequence[Line], reader: QuickReader) -> Iterator[tuple[Line, Trial | bytes]]:
    """As ``read``, of these lines."""
    with path.open("rb", buffering=0) as file:
        for one in some:
            file.seek(one.start)
            line = file.read(one.length)
            yield one, reader.read(line) or line


def _chunks(path: Path) -> Iterator[tuple[int, int]]:
    """(first byte, length) of pieces that end with a line; what follows the last newline is none."""
    with path.open("rb") as file:
        start = 0
        while True:
            file.seek(start + CHUNK_BYTES)
            file.readline()
            end = file.tell()
            file.seek(start)
            length = file.read(end - start).rfind(b"\n") + 1
            if not length:
                return
            yield start, length
            start += length


def _read_chunk(path: Path, times_only: bool, chunk: tuple[int, int]) -> list[Trial | bytes]:
    start, length = chunk
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read(length).split(b"\n")[:-1]
    reader = QuickReader(times_only)
    return [reader.read(line) or line for line in lines]
