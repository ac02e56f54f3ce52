"""Chrome traces of torch.profiler: read event by event, attributed by launch, damaged ones named by place."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.timeline import json_stream, kineto
from bench.timeline.attribute import attribute
from bench.timeline.metrics import iterations
from bench.timeline.model import UNKNOWN


def work(name: str, stream: int, ts: float, dur: float, correlation: int, cat: str = "kernel") -> dict[str, Any]:
    args = {"stream": stream, "device": 0, "correlation": correlation}
    return {"ph": "X", "cat": cat, "name": name, "pid": 0, "tid": stream, "ts": ts, "dur": dur, "args": args}


def launch(ts: float, dur: float, correlation: int, name: str = "cudaLaunchKernel") -> dict[str, Any]:
    args = {"correlation": correlation}
    return {"ph": "X", "cat": "cuda_runtime", "name": name, "pid": 9, "tid": 77, "ts": ts, "dur": dur, "args": args}


def annotation(name: str, ts: float, dur: float) -> dict[str, Any]:
    return {"ph": "X", "cat": "user_annotation", "name": name, "pid": 9, "tid": 77, "ts": ts, "dur": dur}


EVENTS = [
    {"ph": "M", "name": "process_name", "pid": 9, "args": {"name": "python"}},
    annotation("moe_tbo/iteration 3 streams x2 triton", 0, 100),
    annotation("moe_tbo/gemm1 layer 1 ubatch 0", 1, 10),
    launch(2, 1.5, 5),
    work("gemm", 7, 20.25, 40, 5),
    annotation("moe_tbo/dispatch layer 1 ubatch 1", 12, 10),
    launch(13, 1, 6),
    work("Memcpy DtoD", 13, 30, 50, 6, "gpu_memcpy"),
    {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 9, "tid": 77, "ts": 2, "dur": 3},
    launch(90, 5, 7, "cudaDeviceSynchronize"),
]


def written(folder: Path, text: str, name: str = "trace.json") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("indent", [None, 2])
def test_a_trace_is_attributed_by_the_annotation_around_the_launch(tmp_path: Path, indent: int | None) -> None:
    text = json.dumps({"schemaVersion": 1, "deviceProperties": [{"id": 0}], "traceEvents": EVENTS}, indent=indent)
    read = kineto.read(written(tmp_path, text))
    assert read.work.start_ns.tolist() == [20250, 30000]
    assert (read.work.launch_ns.tolist(), read.work.launched_ns.tolist()) == ([2000, 13000], [3500, 14000])
    assert [read.names.text(number) for number in read.waits.name.tolist()] == ["cudaDeviceSynchronize"]
    found = attribute(read)
    assert [found.stage_names.text(number) for number in found.stage.tolist()] == ["gemm1", "dispatch"]
    assert (found.layer.tolist(), found.ubatch.tolist(), found.iteration.tolist()) == ([1, 1], [0, 1], [3, 3])
    (metrics,) = iterations(found)
    assert (metrics.compute_ns, metrics.comm_ns, metrics.overlapped_ns) == (40000, 50000, 30250)


def test_a_gzipped_trace_and_a_bare_array_are_the_same_trace(tmp_path: Path) -> None:
    (tmp_path / "trace.json.gz").write_bytes(gzip.compress(json.dumps({"traceEvents": EVENTS}).encode()))
    bare = written(tmp_path, json.dumps(EVENTS))
    assert kineto.read(tmp_path / "trace.json.gz").work.start_ns.tolist() == kineto.read(bare).work.start_ns.tolist()


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_events_are_whole_wherever_a_chunk_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    text = json.dumps({"first": ["traceEvents"], "traceEvents": EVENTS, "after": 1}, indent=1)
    assert list(json_stream.events(written(tmp_path, text))) == EVENTS


def test_work_without_a_launch_is_kept_and_doubted(tmp_path: Path) -> None:
    alone = [event for event in EVENTS if event.get("cat") == "kernel"]
    read = kineto.read(written(tmp_path, json.dumps({"traceEvents": alone})))
    assert read.work.launch_ns.tolist() == [UNKNOWN]
    assert len(read.doubts) == 2


WHOLE = json.dumps({"traceEvents": EVENTS})
BROKEN = [
    (WHOLE[:-40], "ends in the middle of its events|is no JSON"),
    (WHOLE.replace('"dur": 40', '"dur": forty'), "is no JSON"),
    ('{"events": []}', 'no Chrome trace, it has no "traceEvents"'),
    ('{"traceEvents": 5}', "is no array"),
    ("hello", "is no JSON object or array"),
    ('{"traceEvents": []}', "nothing ran on a GPU"),
    (WHOLE.replace('"stream": 7', '"stream": "seven"'), "event 4 .kernel. is damaged"),
    (WHOLE.replace('"ts": 20.25', '"ts": NaN'), "event 4 .kernel. is damaged"),
    (WHOLE.replace('"ts": 20.25', '"ts": 1e400'), "event 4 .kernel. is damaged"),
    ("", "ends in the middle"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_a_damaged_trace_is_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BenchError, match=message) as refused:
        kineto.read(written(tmp_path, text))
    assert str(refused.value).startswith(str(tmp_path / "trace.json"))
    assert "\n" not in str(refused.value)


def test_a_torn_gzip_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.json.gz").write_bytes(gzip.compress(WHOLE.encode())[:-20])
    with pytest.raises(BenchError, match="cannot be read"):
        kineto.read(tmp_path / "trace.json.gz")
