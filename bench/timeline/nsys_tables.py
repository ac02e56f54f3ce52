"""The tables of an Nsight Systems export that are read, and what each row must be: SQLite keeps any value anywhere."""

import sqlite3
from collections.abc import Collection
from pathlib import Path

from bench.errors import BenchError
from bench.timeline.model import LATEST_NS

KERNEL, MEMCPY, MEMSET = (f"CUPTI_ACTIVITY_KIND_{kind}" for kind in ("KERNEL", "MEMCPY", "MEMSET"))
RUNTIME = "CUPTI_ACTIVITY_KIND_RUNTIME"
NVTX, STRINGS = "NVTX_EVENTS", "StringIds"
GRAPH_NODES, GRAPH_NODE, ORIGINAL_NODE = "CUDA_GRAPH_NODE_EVENTS", "graphNodeId", "originalGraphNodeId"
"""What made each node of a graph, and which it is a copy of; work says of which node it is. Not in all exports."""
PUSH_POP, START_END, CATEGORY, DOMAIN = 59, 60, 33, 75
"""NVTX_EVENTS.eventType (ENUM_NSYS_EVENT_TYPE)."""
PAYLOAD = "COALESCE(int64Value, uint64Value, int32Value, uint32Value, -1)"


def _all_whole(*names: str) -> str:
    return " AND ".join(f"typeof({name}) = 'integer'" for name in names)


_SPAN = f"{_all_whole('start', 'end')} AND start >= 0 AND start <= end AND end < {LATEST_NS}"
_LAUNCHED = "typeof(globalPid) IN ('integer', 'null') AND typeof(correlationId) IN ('integer', 'null')"
_WORK = f"{_SPAN} AND {_all_whole('streamId', 'deviceId')} AND {_LAUNCHED}"
_RANGE = (
    f"{_all_whole('eventType', 'start')} AND (eventType NOT IN ({PUSH_POP}, {START_END}, {CATEGORY}, {DOMAIN})"
    " OR (typeof(globalTid) = 'integer' AND typeof(text) IN ('text', 'null')))"
    f" AND (eventType NOT IN ({PUSH_POP}, {START_END}) OR end IS NULL OR ({_SPAN}))"
    f" AND typeof({PAYLOAD}) = 'integer'"
)
SOUND = {
    STRINGS: "typeof(id) = 'integer' AND typeof(value) = 'text'",
    RUNTIME: f"{_SPAN} AND {_all_whole('globalTid', 'nameId')} AND typeof(correlationId) IN ('integer', 'null')",
    KERNEL: f"{_WORK} AND typeof(shortName) = 'integer'",
    MEMCPY: f"{_WORK} AND {_all_whole('copyKind', 'bytes')} AND bytes >= 0",
    MEMSET: f"{_WORK} AND typeof(bytes) = 'integer' AND bytes >= 0",
    NVTX: _RANGE,
}
"""Table -> what each of its rows must be, in SQL."""


def has_columns(db: sqlite3.Connection, table: str, *names: str) -> bool:
    """Whether the table is there with all of them."""
    return set(names) <= {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


def refuse_unsound(db: sqlite3.Connection, path: Path, tables: Collection[str]) -> None:
    """Look at every row of those ``tables`` that are read.

    Raises:
        BenchError: the first row that is not what it must be.
    """
    for table, rule in SOUND.items():
        if table not in tables:
            continue
        found = db.execute(f"SELECT rowid FROM {table} WHERE NOT COALESCE({rule}, 0) LIMIT 1").fetchone()
        if found is not None:
            raise BenchError(f"{path}: table {table}, row {found[0]} is damaged: a value is missing or out of range")
