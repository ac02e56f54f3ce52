"""Read an Nsight Systems SQLite export (``nsys export --type sqlite``): tables exist only where something was seen."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bench.errors import BenchError
from bench.timeline import graphs, nsys_tables
from bench.timeline.model import UNKNOWN, Calls, Names, Profile, Ranges, Work, columns
from bench.timeline.nsys_tables import (
    CATEGORY,
    DOMAIN,
    GRAPH_NODE,
    GRAPH_NODES,
    KERNEL,
    MEMCPY,
    MEMSET,
    NVTX,
    ORIGINAL_NODE,
    PAYLOAD,
    PUSH_POP,
    RUNTIME,
    START_END,
    STRINGS,
)

PID_MASK = 0xFFFFFFFFFF000000
"""Of a globalTid: what a globalPid is."""
WAITS = "name.value GLOB 'cuda*Synchronize*' OR name.value GLOB 'cu*Synchronize*' OR name.value GLOB 'cudaMemcpy_*'"
"""Calls that hold the host until the GPU got somewhere: synchronisations, and copies that are not asynchronous."""


def read(path: Path) -> Profile:
    """All kernels, copies, sets, NVTX ranges and waiting calls.

    A launch is the earliest API call of the work's correlation id in its process: several rows of one id (a runtime
    call and the driver call inside it) would otherwise multiply it.

    Raises:
        BenchError: no readable SQLite file, no export, or nothing of a GPU in it.
    """
    with _opened(path) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if STRINGS not in tables:
            raise BenchError(f"{path}: no Nsight Systems export, it has no table {STRINGS}")
        if not tables & {KERNEL, MEMCPY, MEMSET}:
            raise BenchError(f"{path}: no kernel, copy or set in it: nothing ran on a GPU while it was recorded")
        nsys_tables.refuse_unsound(db, path, tables)
        names, doubts = Names(), []
        strings = {number: names.number(text) for number, text in db.execute(f"SELECT id, value FROM {STRINGS}")}
        work, replayed = _work(db, tables, names, strings)
        doubts += graphs.unmatched(replayed)
        if RUNTIME not in tables:
            doubts.append(f"no table {RUNTIME}: no launch is known, so nothing can be attributed to a range")
        ranges = _ranges(db, names, strings) if NVTX in tables else _no_ranges()
        if not len(ranges):
            doubts.append("no NVTX range was recorded")
        return Profile(f"{path} (Nsight Systems)", names, work, ranges, _waits(db, tables, strings), doubts)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise BenchError(f"{path}: no such file")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            yield db
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the text of an error may quote a broken schema
        raise BenchError(f"{path}: cannot be read as an SQLite export: {error}") from error


def _work(db: sqlite3.Connection, tables: set[str], names: Names, strings: dict[int, int]) -> tuple[Work, int]:
    """All work, and how many pieces of it are of graphs whose capture is unknown."""
    launches: dict[tuple[int, int], tuple[int, int, int]] = {}
    if RUNTIME in tables:
        query = f"SELECT globalTid, correlationId, start, end FROM {RUNTIME} ORDER BY start, end DESC"
        for thread, correlation, start, end in db.execute(query):
            launches.setdefault((thread & PID_MASK, correlation), (start, end, thread))
    copy, fill = names.number("[memcpy]"), names.number("[memset]")
    sources: list[tuple[str, str, str, Callable[[int], int]]] = [
        (KERNEL, "shortName", "-1", lambda number: strings.get(number, UNKNOWN)),
        (MEMCPY, "copyKind", "bytes", lambda kind: copy_name(kind, names, copy)),
        (MEMSET, "-1", "bytes", lambda _: fill),
    ]
    rows: list[tuple[int, ...]] = []
    unknown = (UNKNOWN, UNKNOWN, UNKNOWN)
    captures, replayed = _captures(db), 0
    for table, naming, size, number in sources:
        if table not in tables:
            continue
        graph_node = f"COALESCE({GRAPH_NODE}, 0)" if nsys_tables.has_columns(db, table, GRAPH_NODE) else "0"
        query = (
            f"SELECT start, end, streamId, deviceId, {naming}, {size}, globalPid, correlationId, {graph_node}"
            f" FROM {table}"
        )
        for start, end, stream, device, named, num_bytes, process, correlation, node in db.execute(query):
            launch, launched, thread = launches.get((process, correlation), unknown)
            captured = captures.get((thread, node), UNKNOWN)
            replayed += node != 0 and captured == UNKNOWN
            rows.append((start, end, stream, device, number(named), num_bytes, launch, launched, thread, captured))
    rows.sort()
    return Work(*columns(rows, 10)), replayed


def _captures(db: sqlite3.Connection) -> dict[tuple[int, int], int]:
    """(thread, node of a graph) -> when that thread issued what the node is of, or what it is a copy of."""
    if not nsys_tables.has_columns(db, GRAPH_NODES, "start", "globalTid", GRAPH_NODE, ORIGINAL_NODE):
        return {}
    made: dict[tuple[int, int], int] = {}
    copies: list[tuple[int, int, int]] = []
    query = f"SELECT start, globalTid, {GRAPH_NODE}, COALESCE({ORIGINAL_NODE}, 0) FROM {GRAPH_NODES} ORDER BY start"
    for start, thread, node, original in db.execute(query):
        if original:
            copies.append((thread, node, original))
        else:
            made.setdefault((thread, node), start)
    for thread, node, original in copies:  # by start: a copy's original before the copy
        if (thread, original) in made:
            made[thread, node] = made[thread, original]
    return made


def copy_name(kind: int, names: Names, otherwise: int) -> int:
    """``[memcpy HtoD]`` and its like, as nsys' own reports call them."""
    direction = {1: "HtoD", 2: "DtoH", 8: "DtoD", 10: "PtoP"}.get(kind)
    return otherwise if direction is None else names.number(f"[memcpy {direction}]")


def _ranges(db: sqlite3.Connection, names: Names, strings: dict[int, int]) -> Ranges:
    named: dict[int, dict[tuple[int, int, int], int]] = {CATEGORY: {}, DOMAIN: {}}
    declared = f"SELECT eventType, globalTid, domainId, category, text, textId FROM {NVTX} WHERE eventType IN (33, 75)"
    for kind, thread, domain, category, text, text_id in db.execute(declared):
        number = names.number(text) if text is not None else strings.get(text_id, UNKNOWN)
        named[kind][thread & PID_MASK, domain, category if kind == CATEGORY else 0] = number
    query = (
        f"SELECT start, end, globalTid, text, textId, domainId, category, {PAYLOAD} FROM {NVTX}"
        f" WHERE eventType IN ({PUSH_POP}, {START_END}) AND end IS NOT NULL"
    )
    rows: list[tuple[int, ...]] = []
    for start, end, thread, text, text_id, domain, category, value in db.execute(query):
        process = thread & PID_MASK
        name = names.number(text) if text is not None else strings.get(text_id, UNKNOWN)
        in_domain = named[DOMAIN].get((process, domain, 0), UNKNOWN)
        in_category = named[CATEGORY].get((process, domain, category), UNKNOWN)
        rows.append((start, end, thread, name, in_domain, in_category, value))
    rows.sort()
    return Ranges(*columns(rows, 7))


def _no_ranges() -> Ranges:
    return Ranges(*columns([], 7))


def _waits(db: sqlite3.Connection, tables: set[str], strings: dict[int, int]) -> Calls:
    if RUNTIME not in tables:
        return Calls(*columns([], 4))
    query = (
        f"SELECT call.start, call.end, call.globalTid, call.nameId FROM {RUNTIME} AS call"
        f" JOIN {STRINGS} AS name ON name.id = call.nameId WHERE {WAITS} ORDER BY call.start"
    )
    rows: list[tuple[int, ...]] = [
        (start, end, thread, strings[name]) for start, end, thread, name in db.execute(query)
    ]
    return Calls(*columns(rows, 4))
