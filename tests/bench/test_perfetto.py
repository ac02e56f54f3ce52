"""The exported trace: JSON that Perfetto opens, tracks with names, and no two slices of a track at one time."""

import gzip
import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kept_profile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from timelines import Op, joined, profile

from bench.errors import BenchError
from bench.timeline import perfetto
from bench.timeline.analysis import runs_of
from bench.timeline.attribute import attribute
from bench.timeline.metrics import iterations
from bench.timeline.read import read

Track = tuple[int, int]


def written(path: Path, *ops: Op) -> list[dict[str, Any]]:
    perfetto.write(runs_of(attribute(profile(list(ops)))), path)
    return loaded(path)


def loaded(path: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    return events


def names(events: list[dict[str, Any]], what: str = "thread_name") -> dict[Track, str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == what}


def slices(events: list[dict[str, Any]]) -> dict[Track, list[tuple[int, int, str]]]:
    """Track -> (start, end, name) in nanoseconds."""
    found = defaultdict(list)
    for e in events:
        if e["ph"] == "X":
            start = round(e["ts"] * 1000)
            found[e["pid"], e["tid"]].append((start, start + round(e["dur"] * 1000), e["name"]))
    return found


OPS = st.lists(
    st.tuples(st.sampled_from(["gemm1", "dispatch"]), st.integers(0, 1), st.integers(0, 60), st.integers(1, 40)),
    min_size=1,
    max_size=15,
).map(lambda ops: [(name, who, 1000 + at, 1000 + at + length, 3 * i) for i, (name, who, at, length) in enumerate(ops)])


@given(OPS)
def test_no_two_slices_of_a_track_overlap_and_none_is_lost(ops: list[Op]) -> None:
    with TemporaryDirectory() as folder:
        events = written(Path(folder) / "x.json", *ops)
    begin = min(op[2] for op in ops)
    tracks = slices(events)
    named = names(events)
    assert set(tracks) == set(named)
    for spans in tracks.values():
        assert all(left[1] <= right[0] for left, right in pairwise(spans))
    work = [span for track, spans in tracks.items() if named[track] != perfetto.EXPOSED for span in spans]
    assert sorted(work) == sorted((start - begin, end - begin, stage) for stage, _, start, end, _ in ops)
    (measured,) = iterations(attribute(profile(ops)))
    exposed = [end - start for track in tracks if named[track] == perfetto.EXPOSED for start, end, _ in tracks[track]]
    assert sum(exposed) == measured.exposed_ns


def test_a_track_is_a_stream_and_a_micro_batch_and_a_slice_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    perfetto.write(runs_of(attribute(read(kept_profile.TRACES[2]))), path)
    events = loaded(path)
    assert set(names(events).values()) == {
        "stream 7, ubatch 0",
        "stream 7, ubatch 1",
        "stream 7, no ubatch",
        "stream 15, ubatch 0",
        "stream 15, ubatch 1",
        perfetto.EXPOSED,
    }
    gemm = next(e for e in events if e["name"] == "gemm1" and e["args"]["ubatch"] == 1)
    assert gemm["args"] == {"kernel": "nvfp4_grouped_gemm_kernel", "lane": "compute", "layer": 0, "ubatch": 1}
    unknown = [e["name"] for e in events if e["ph"] == "X" and "lane" not in e["args"] and e["name"] != "exposed"]
    assert len(unknown) == 1, "work of no known stage goes by its kernel's name"
    assert "CatArrayBatchedCopy" in unknown[0] or "at::native" in unknown[0]


def test_work_that_runs_at_once_on_one_stream_gets_a_track_beside_it(tmp_path: Path) -> None:
    events = written(
        tmp_path / "x.json", ("gemm1", 0, 100, 200, 1), ("gemm2", 0, 150, 160, 2), ("merge", 0, 200, 210, 3)
    )
    by_name = {name: [span[2] for span in slices(events)[track]] for track, name in names(events).items()}
    assert by_name == {"stream 1, ubatch 0": ["gemm1", "merge"], "stream 1, ubatch 0 (2)": ["gemm2"]}


def test_each_run_is_a_process_and_each_device_says_so(tmp_path: Path) -> None:
    two = joined(("off triton", 10), ("streams x2", 50))
    perfetto.write(runs_of(attribute(two)), tmp_path / "x.json")
    assert list(names(loaded(tmp_path / "x.json"), "process_name").values()) == ["off triton", "streams x2"]
    two.work.device[:] = [0, 1]
    two.work.launch_ns[:] = 0
    perfetto.write(runs_of(attribute(two)), tmp_path / "x.json")
    assert list(names(loaded(tmp_path / "x.json"), "process_name").values()) == [perfetto.UNNAMED]
    tracks = names(loaded(tmp_path / "x.json")).values()
    assert list(tracks) == ["device 0, stream 1, no ubatch", "device 1, stream 1, no ubatch"]


def test_times_are_exact_and_begin_at_zero(tmp_path: Path) -> None:
    late = 4_720_822_373_709_399_123
    found = profile([("gemm1", 0, late, late + 1_234_567, late - 10)])
    perfetto.write(runs_of(attribute(found)), tmp_path / "x.json")
    assert '"ts": 0.000, "dur": 1234.567' in (tmp_path / "x.json").read_text()


def test_gz_packs_and_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    runs = runs_of(attribute(profile([("gemm1", 0, 100, 200, 1)])))
    perfetto.write(runs, tmp_path / "x.json.gz")
    with gzip.open(tmp_path / "x.json.gz", "rt") as file:
        assert json.load(file)["displayTimeUnit"] == "ms"
    with pytest.raises(BenchError, match=r"none/x\.json: cannot be written: No such file"):
        perfetto.write(runs, tmp_path / "none" / "x.json")


def test_names_with_quotes_stay_json(tmp_path: Path) -> None:
    found = profile([("gemm1", 0, 100, 200, 1)])
    found.names.texts[int(found.work.name[0])] = 'void k<"a\\b">'
    found.work.launch_ns[:] = np.int64(10_000)
    perfetto.write(runs_of(attribute(found)), tmp_path / "x.json")
    (event,) = (e for e in loaded(tmp_path / "x.json") if e["ph"] == "X")
    assert event["name"] == 'void k<"a\\b">'
