"""Profiles that were damaged: a value that cannot be is refused with its place, and nothing breaks."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import damage
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import bench, no_accident, refused

SAMPLE = Path(__file__).parents[1] / "data" / "nsight_sample.sqlite"
USED = {
    "StringIds": ("id", "value"),
    "NVTX_EVENTS": ("start", "eventType"),
    "CUPTI_ACTIVITY_KIND_RUNTIME": ("start", "end", "globalTid", "nameId"),
    "CUPTI_ACTIVITY_KIND_KERNEL": ("start", "end", "streamId", "deviceId", "shortName"),
    "CUPTI_ACTIVITY_KIND_MEMCPY": ("start", "end", "streamId", "deviceId", "copyKind", "bytes"),
}
"""Table -> columns that must hold a value of their kind in every row that is read."""
CELLS = [(table, column) for table, columns in USED.items() for column in columns]


def event(category: str, name: str, ts: float, dur: float, **args: int) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 2, "ts": ts, "dur": dur, "args": args}


TRACE = {
    "schemaVersion": 1,
    "traceEvents": [
        event("user_annotation", "moe_tbo/iteration 0 streams x2 torch", 0, 900),
        event("user_annotation", "moe_tbo/gemm1 layer 0 ubatch 0", 1, 10),
        event("cuda_runtime", "cudaLaunchKernel", 2, 3.5, correlation=7),
        event("kernel", "gemm", 20.25, 40, stream=7, device=0, correlation=7),
        event("user_annotation", "moe_tbo/dispatch layer 0 ubatch 1", 12, 10),
        event("cuda_runtime", "cudaMemcpyAsync", 13, 2, correlation=8),
        event("gpu_memcpy", "Memcpy DtoD", 30, 50, stream=8, device=0, correlation=8, bytes=64),
        event("cuda_runtime", "cudaDeviceSynchronize", 70, 20, correlation=9),
    ],
}
USED_KEYS = {"ph", "name", "ts", "dur", "stream", "device"}


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample with its read tables alone, without types and constraints, so that a cell takes any value."""
    path = tmp_path_factory.mktemp("loose") / "loose.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.execute("ATTACH ? AS sample", (str(SAMPLE),))
        for table in USED:
            names = ", ".join(name for _, name, *_ in db.execute(f"PRAGMA sample.table_info({table})"))
            db.execute(f"CREATE TABLE {table} ({names})")
            db.execute(f"INSERT INTO {table} SELECT * FROM sample.{table} LIMIT 300")
        db.commit()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timelines")
    (folder / "trace.json").write_text(json.dumps(TRACE))
    for name in (folder / "trace.json", SAMPLE):
        assert bench("analyze", name).code == 0, "whole, it is read"
    return folder


@given(damaged=damage.damaged_json(TRACE["traceEvents"]))
def test_a_trace_with_a_value_that_cannot_be(folder: Path, damaged: tuple[Any, damage.Path_, str]) -> None:
    events, place, how = damaged
    (folder / "trace.json").write_text(json.dumps({"traceEvents": events}))
    said = bench("analyze", folder / "trace.json")
    no_accident(said)
    if place[-1] in USED_KEYS and (how == "removed" or damage.kind(damage.at(events, place)) not in FITTING[place[-1]]):
        refused(said, folder / "trace.json")


FITTING = {key: {"text"} if key in ("ph", "name") else {"whole"} for key in USED_KEYS}
FITTING |= {key: {"whole", "number"} for key in ("ts", "dur")}
"""Kinds that a key may hold; in its range or not, which only ``no_accident`` sees."""


@pytest.mark.parametrize("key", ["ts", "dur"])
@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf"), 1e308, 10**300, True])
def test_a_time_out_of_range_is_refused(folder: Path, key: str, value: Any) -> None:
    for index in range(len(TRACE["traceEvents"])):
        changed = damage.replaced(TRACE, ("traceEvents", index, key), value)
        (folder / "trace.json").write_text(json.dumps(changed))
        refused(bench("analyze", folder / "trace.json"), folder / "trace.json")


@given(data=damage.damaged_bytes(json.dumps(TRACE).encode()))
def test_a_trace_with_damaged_bytes(folder: Path, data: bytes) -> None:
    (folder / "trace.json").write_bytes(data)
    no_accident(bench("analyze", folder / "trace.json"))


HOSTILE_CELLS = (None, "x", b"\x00\xff", 0.5, -1, 2**63 - 1, "7 days", "\x1b[31m")


@given(cell=st.sampled_from(CELLS), value=st.sampled_from(HOSTILE_CELLS), row=st.integers(1, 300))
def test_an_export_with_a_value_that_cannot_be(
    folder: Path, loose: Path, cell: tuple[str, str], value: Any, row: int
) -> None:
    (table, column), changed = cell, folder / "changed.sqlite"
    shutil.copy(loose, changed)
    with closing(sqlite3.connect(changed)) as db:
        db.execute("PRAGMA synchronous = OFF")
        count = db.execute(f"SELECT MAX(rowid) FROM {table}").fetchone()[0]
        db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, 1 + row % count))
        db.commit()
    said = bench("analyze", changed)
    no_accident(said)
    fits = isinstance(value, str) if column == "value" else isinstance(value, int)
    if not fits or (table != "NVTX_EVENTS" and column in ("start", "end", "bytes") and value == -1):
        refused(said, f"{changed}: table {table}, row ")


@given(data=st.data())
def test_an_export_with_damaged_bytes(folder: Path, loose: Path, data: st.DataObject) -> None:
    (folder / "bytes.sqlite").write_bytes(data.draw(damage.damaged_bytes(loose.read_bytes())))
    no_accident(bench("analyze", folder / "bytes.sqlite"))


RULES = r"""
ranges: ['^moe_tbo/iter(?P<iteration>\d+)$', '^moe_tbo/(?P<stage>dispatch|gemm\d|combine)$']
stages: {gemm1: compute}
streams: {7: comm, 13: compute}
kernels: [{match: gemm, lane: compute, stage: gemm1}, {match: 'memcpy', lane: comm}]
"""
TOKENS = ("&a", "*a", "!!python/object:os.system", "{", "[", "]", "}", "? ", "<<: ", "(", "(?P<iteration>.)", "(?P<x>",
          "\\", "1e400", ".nan", "null", "²", "- ", ": ", "\n", "\t", "\x00", "'", '"',
          "---\n", "%YAML 9.9\n")  # fmt: skip


@given(data=st.data())
def test_damaged_rules(folder: Path, data: st.DataObject) -> None:
    (folder / "rules.yaml").write_bytes(damaged_text(data, RULES, TOKENS))
    no_accident(bench("analyze", SAMPLE, "--map", folder / "rules.yaml"))


def damaged_text(data: st.DataObject, whole: str, tokens: tuple[str, ...]) -> bytes:
    if data.draw(st.booleans()):
        return data.draw(damage.damaged_bytes(whole.encode()))
    return data.draw(damage.damaged_text(whole, tokens)).encode()
