"""Replays of a CUDA graph in a profile: whose stage each node is, from the capture; unknown where that is not known.

Both profiles are written by hand: a graph of gemm1 (a set and a kernel) and dispatch (a kernel) of two micro-batches,
captured in annotated ranges, replayed twice. Its branches run on other streams than it was captured on, out of order.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from test_kineto import annotation, launch, work

from bench.timeline import graphs, kineto, nsys
from bench.timeline.attribute import Attributed, attribute
from bench.timeline.metrics import iterations
from bench.timeline.model import UNKNOWN, Profile

GRAPH = 5 << 32
CAPTURE = [  # (stage, micro-batch, what is launched), in issue order; node GRAPH + 2 * place + 1, events between them
    ("dispatch", 0, "kernel"),
    ("gemm1", 0, "set"),
    ("gemm1", 0, "kernel"),
    ("dispatch", 1, "kernel"),
    ("gemm1", 1, "set"),
    ("gemm1", 1, "kernel"),
]
STREAM, ORDER = {"dispatch": 21, "gemm1": 22}, (0, 3, 1, 2, 4, 5)
ISSUED_ON = {"dispatch": 13, "gemm1": 7}
CALL = {"kernel": "cudaLaunchKernelExC", "set": "cudaMemsetAsync"}
CATEGORY = {"kernel": "kernel", "set": "gpu_memset"}
EXPECTED = [(*CAPTURE[place][:2], iteration) for iteration in (0, 1) for place in ORDER]


def events(
    captured: Iterable[int] = range(len(CAPTURE)),
    issued: Iterable[int] = range(len(CAPTURE)),
    named: Callable[[str, str], str] = "{} of {}".format,
) -> list[dict[str, Any]]:
    """A trace of torch.profiler in which these calls were recorded: issued without a graph, then captured."""
    found = [annotation(f"moe_tbo/{graphs.AS_ISSUED}", 0, 290)]
    for place in issued:
        stage, _, kind = CAPTURE[place]
        found.append(launch(10 * place, 2, 50 + place, CALL[kind]))
        found.append(work(named(kind, stage), ISSUED_ON[stage], 200 + 10 * place, 5, 50 + place, CATEGORY[kind]))
    for place in captured:
        stage, ubatch, kind = CAPTURE[place]
        found.append(annotation(f"moe_tbo/{stage} layer 0 ubatch {ubatch}", 300 + 10 * place, 5))
        found.append(launch(300 + 10 * place + 1, 2, 100 + place, CALL[kind]))
    for iteration in (0, 1):
        at = 1000 * (iteration + 1)
        found.append(annotation(f"moe_tbo/iteration {iteration} streams x2", at, 100))
        found.append(launch(at + 1, 3, 200 + iteration, "cudaGraphLaunch"))
        for index, place in enumerate(ORDER):
            stage, _, kind = CAPTURE[place]
            start = at + 10 + 20 * index
            found.append(work(named(kind, stage), STREAM[stage], start, 10, 200 + iteration, CATEGORY[kind]))
    return found


def read_kineto(folder: Path, found: list[dict[str, Any]]) -> Profile:
    (folder / "trace.json").write_text(json.dumps({"traceEvents": found}))
    return kineto.read(folder / "trace.json")


def said(found: Attributed) -> list[tuple[str, int, int]]:
    """(stage, micro-batch, iteration) of what was replayed; the empty stage is unknown."""
    stages = map(found.stage_names.text, found.stage.tolist())
    every = zip(stages, found.ubatch.tolist(), found.iteration.tolist(), strict=True)
    return [one for one in every if one[2] != UNKNOWN]


def test_a_trace_gives_each_piece_the_stage_of_its_captured_call_and_the_iteration_of_its_replay(
    tmp_path: Path,
) -> None:
    read = read_kineto(tmp_path, events())
    found = attribute(read)
    assert said(found) == EXPECTED
    assert read.doubts == []
    assert {found.run_names.text(run) for run in found.run.tolist()} == {"", "streams x2"}
    for metrics in iterations(found):
        assert (metrics.comm_ns, metrics.compute_ns, metrics.unknown_ns) == (20_000, 40_000, 0)
        assert metrics.starved_ns == 0, "one launch, before all of it"
        assert metrics.hand_over_gap_ns is None


@pytest.mark.parametrize(
    "changed", [{"captured": (0, 1, 2, 4, 5)}, {"captured": ()}, {"issued": ()}, {"issued": (0, 1, 2, 3, 5)}]
)
def test_where_captured_calls_are_not_those_issued_all_is_unknown(tmp_path: Path, changed: dict[str, Any]) -> None:
    read = read_kineto(tmp_path, events(**changed))
    assert {stage for stage, _, _ in said(attribute(read))} == {""}
    assert [iteration for *_, iteration in said(attribute(read))] == [0] * 6 + [1] * 6
    assert read.doubts == graphs.unmatched(12)


def test_a_name_on_both_streams_stays_unknown(tmp_path: Path) -> None:
    """Which of the kernels ran first is not known then; sets are on one stream."""
    read = read_kineto(tmp_path, events(named=lambda kind, stage: kind))
    assert [stage for stage, _, _ in said(attribute(read))] == ["", "", "gemm1", "", "gemm1", ""] * 2
    assert read.doubts == graphs.unmatched(8)
    for metrics in iterations(attribute(read)):
        assert (metrics.comm_ns, metrics.unknown_ns) == (0, 40_000)


def test_a_replay_of_something_else_stays_unknown(tmp_path: Path) -> None:
    """A kernel less than was captured: which of the two ran is not known."""
    read = read_kineto(tmp_path, [event for event in events() if event.get("ts") != 1010])
    assert [stage for stage, _, _ in said(attribute(read))[:5]] == ["", "gemm1", "gemm1", "gemm1", "gemm1"]
    assert read.doubts == graphs.unmatched(1)


def test_a_thread_that_replays_nothing_captured_none_of_it(tmp_path: Path) -> None:
    elsewhere = launch(5, 1, 99, CALL["kernel"]) | {"tid": 78}
    assert said(attribute(read_kineto(tmp_path, [*events(), elsewhere]))) == EXPECTED


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("cudaLaunchKernel", graphs.KERNEL),
        ("cuLaunchKernelEx", graphs.KERNEL),
        ("cudaMemcpyAsync", graphs.COPY),
        ("cudaMemsetAsync", graphs.SET),
        ("cudaGraphLaunch", graphs.REPLAY),
        ("cudaEventRecord", UNKNOWN),
    ],
)
def test_a_call_is_known_by_what_it_launches(call: str, kind: int) -> None:
    assert graphs.kind_of(call) == kind


PROCESS, THREAD = 7 << 24, (7 << 24) + 1
SCHEMA = """
CREATE TABLE StringIds (id, value);
CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start, end, globalTid, correlationId, nameId);
CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL
    (start, end, streamId, deviceId, shortName, globalPid, correlationId, graphNodeId);
CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET (start, end, streamId, deviceId, bytes, globalPid, correlationId, graphNodeId);
CREATE TABLE NVTX_EVENTS (start, end, eventType, globalTid, domainId, category, text, textId,
    int64Value, uint64Value, int32Value, uint32Value);
CREATE TABLE CUDA_GRAPH_NODE_EVENTS (start, end, nameId, globalTid, graphNodeId, originalGraphNodeId);
"""
COPIED = 6 << 32


def export(folder: Path, *changes: str) -> Path:
    """The same from Nsight Systems: what is replayed are copies of the nodes that were captured."""
    path = folder / "export.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA)

        def insert(table: str, *values: object) -> None:
            db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)

        def annotated(name: str, start: int, end: int) -> None:
            insert("NVTX_EVENTS", start, end, 59, THREAD, 1, 0, name, None, None, None, None, None)

        insert("StringIds", 1, "a kernel")
        insert("NVTX_EVENTS", 0, None, 75, THREAD, 1, 0, "moe_tbo", None, None, None, None, None)
        for place, (stage, ubatch, _) in enumerate(CAPTURE):
            annotated(f"{stage} layer 0 ubatch {ubatch}", 10 * place, 10 * place + 5)
            node = GRAPH + 2 * place + 1
            insert("CUDA_GRAPH_NODE_EVENTS", 10 * place + 2, 10 * place + 2, 1, THREAD, node, None)
            insert("CUDA_GRAPH_NODE_EVENTS", 500 + place, 500 + place, 1, THREAD, COPIED + place, node)
        for iteration in (0, 1):
            at = 1000 * (iteration + 1)
            annotated(f"iteration {iteration} streams x2", at, at + 100)
            insert("CUPTI_ACTIVITY_KIND_RUNTIME", at + 1, at + 4, THREAD, 200 + iteration, 1)
            for index, place in enumerate(ORDER):
                stage, _, kind = CAPTURE[place]
                table = f"CUPTI_ACTIVITY_KIND_{'KERNEL' if kind == 'kernel' else 'MEMSET'}"
                start, of = at + 10 + 20 * index, (PROCESS, 200 + iteration, COPIED + place)
                insert(table, start, start + 10, STREAM[stage], 0, 1, *of)
        for change in changes:
            db.execute(change)
        db.commit()
    return path


def test_an_export_gives_each_copy_of_a_node_the_stage_of_its_original(tmp_path: Path) -> None:
    read = nsys.read(export(tmp_path))
    assert said(attribute(read)) == EXPECTED
    assert read.doubts == []


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        (f"DELETE FROM CUDA_GRAPH_NODE_EVENTS WHERE graphNodeId = {GRAPH + 1}", 2),
        ("DELETE FROM CUDA_GRAPH_NODE_EVENTS WHERE originalGraphNodeId IS NOT NULL", 12),
        (f"UPDATE CUDA_GRAPH_NODE_EVENTS SET globalTid = {THREAD + 1}", 12),
        ("DROP TABLE CUDA_GRAPH_NODE_EVENTS", 12),
    ],
)
def test_a_node_whose_making_is_unknown_stays_unknown(tmp_path: Path, change: str, pieces: int) -> None:
    read = nsys.read(export(tmp_path, change))
    found = said(attribute(read))
    assert sum(stage == "" for stage, _, _ in found) == pieces
    assert all(one in (wanted, ("", UNKNOWN, wanted[2])) for one, wanted in zip(found, EXPECTED, strict=True))
    assert read.doubts == graphs.unmatched(pieces)


def test_an_export_without_node_numbers_is_read_as_before(tmp_path: Path) -> None:
    read = nsys.read(export(tmp_path, "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN graphNodeId"))
    assert read.doubts == []
    assert {one[0] for one in said(attribute(read))} == {"", "gemm1"}, "the sets have them"
