"""Reading results.jsonl quickly: what the quick way takes is what the strict way says, by one process or several."""

import json
import string
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import synthetic

from bench import forked, lines, quick_record
from bench.device_work import DeviceWork
from bench.errors import BenchError
from bench.identity import variant_id
from bench.quick_record import NO_REST, NO_TIMES, NOT_STRUCTURE, QuickReader
from bench.results import Measurement, Status, Trial, from_record, to_record
from bench.run_folder import RunFolder
from moe_impl.options import SkewedRouting

REPORTS = sorted((Path(__file__).parents[2] / "reports").glob("*/results.jsonl"))


def some_trials() -> list[Trial]:
    """Of many kinds: timed, failed, profiled, skewed, of a CPU."""
    cases = synthetic.cases((256, 4096), splits=(2, 4))
    trials = synthetic.Builder(passes=2, pairs=2).trials(cases)
    trials += synthetic.Builder(machine=synthetic.CPU, passes=1, pairs=1).trials(cases[:1])
    failing = synthetic.Builder(passes=1, change=lambda m, p, w: synthetic.failed(m, Status.OOM, 'of "memory":\n{'))
    trials += failing.trials([replace(cases[0], workload=replace(cases[0].workload, seed=9))])
    work = DeviceWork(1e-3, 1.01e-3, 812, ("gemm", "copy"))
    profiled = synthetic.Builder(passes=2, pairs=1, change=lambda m, p, w: replace(m, device_work=work, rank_skew=0.1))
    trials += profiled.trials([replace(cases[0], workload=replace(cases[0].workload, seed=7))])
    skewed = replace(cases[0].workload, routing=SkewedRouting("hotspot", 0.25))
    return trials + synthetic.Builder(passes=1, pairs=1).trials([replace(cases[0], workload=skewed)])


TRIALS = some_trials()


def stored(trial: Trial) -> bytes:
    return json.dumps(to_record(trial)).encode()


@pytest.mark.parametrize("index", range(len(TRIALS)))
def test_a_line_that_this_version_wrote_is_read_as_the_strict_reader_does(index: int) -> None:
    line = stored(TRIALS[index])
    assert QuickReader().read(line) == from_record(json.loads(line)) == TRIALS[index]


@pytest.mark.parametrize("results", REPORTS, ids=lambda path: path.parent.name)
def test_so_is_every_committed_run(results: Path) -> None:
    reader, of_times = QuickReader(), QuickReader(times_only=True)
    for line in results.read_bytes().splitlines():
        assert reader.read(line) == from_record(json.loads(line))
        assert of_times.read(line) is not None


Change = Callable[[dict[str, Any]], Any]
DAMAGES: dict[str, Change] = {
    "schema": lambda record: record.update(schema=2),
    "schema true": lambda record: record.update(schema=True),
    "case id": lambda record: record.update(case_id="0" * 16),
    "variant id": lambda record: record["measurements"][1].update(variant_id="0" * 16),
    "role": lambda record: record["measurements"][1].update(role="T2o"),
    "no role": lambda record: record["measurements"][1].pop("role"),
    "unknown field": lambda record: record.update(more=1),
    "unknown field of a variant": lambda record: record["measurements"][0]["variant"].update(more=1),
    "unknown field of a router": lambda record: record["case"]["workload"]["model"]["router"].update(more=1),
    "unknown field of a time": lambda record: record["case"]["link"]["times"][0].update(more=1),
    "text for a number": lambda record: record["measurements"][0]["samples_s"].__setitem__(0, "1"),
    "negative time": lambda record: record["measurements"][0]["samples_s"].__setitem__(1, -1.0),
    "no number": lambda record: record["measurements"][2]["stages"]["op_s"]["gemm1"][1].__setitem__(0, float("nan")),
    "negative stage": lambda record: record["measurements"][2]["stages"]["op_s"]["gemm2"][0].__setitem__(0, -1e-9),
    "negative bytes": lambda record: record["measurements"][0]["memory"].update(peak_bytes=-1),
    "unknown stage": lambda record: record["measurements"][0]["stages"]["op_s"].update(nap=[[1.0], [1.0]]),
    "no measurement": lambda record: record.update(measurements=[]),
    "whole number with a point": lambda record: record["measurements"][0]["places"].__setitem__(1, 1.0),
    "endless bytes": lambda record: record["measurements"][0]["memory"].update(peak_bytes=2**62 + 1),
    "a layer less": lambda record: record["measurements"][2]["stages"]["op_s"]["gemm1"].pop(),
    "a stage less": lambda record: record["measurements"][2]["stages"]["op_s"].pop("gemm1"),
    "a micro-batch more": lambda record: record["measurements"][2]["stages"]["op_s"]["gemm1"][1].append(1.0),
    "no span": lambda record: record["measurements"][2]["stages"].pop("span_s"),
    "other micro-batches": lambda record: record["measurements"][2].update(effective_split_factor=1),
    "endless micro-batches": lambda record: record["measurements"][2].update(effective_split_factor=2**62),
    "negative micro-batches": lambda record: record["measurements"][2].update(effective_split_factor=-1),
    "a place less": lambda record: record["measurements"][0]["places"].pop(),
    "negative case": lambda record: record["case"]["workload"].update(seed=-1),
    "unknown field of a check": lambda record: record["measurements"][0]["check"].update(more=1),
    "case a number": lambda record: record.update(case=0),
    "variant a number": lambda record: record["measurements"][0].update(variant=2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_left_to_the_strict_reader(damage: str, tmp_path: Path) -> None:
    record = to_record(TRIALS[0])
    DAMAGES[damage](record)
    for times_only in (False, True):
        assert QuickReader(times_only).read(json.dumps(record).encode()) is None
    good = stored(TRIALS[1])
    (tmp_path / "results.jsonl").write_bytes(good + b"\n" + json.dumps(record).encode() + b"\n")
    with pytest.raises(BenchError, match=r"results.jsonl:2: not a readable Trial"):
        RunFolder(tmp_path).trials()


def test_a_key_that_is_twice_in_an_object_is_found_whatever_was_read_before() -> None:
    reader, line = QuickReader(), stored(TRIALS[0])
    assert reader.read(line) is not None
    assert reader.read(line.replace(b'"pass_index": 0', b'"pass_index": 7, "pass_index": 0', 1)) is None
    assert reader.read(line.replace(b'"engine": "serial"', b'"engine": "streams", "engine": "serial"', 1)) is None


def test_without_msgspec_the_strict_reader_reads_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"".join(stored(trial) + b"\n" for trial in TRIALS[:2]))
    for name in ("_read_line", "_read_line_but_stages"):
        monkeypatch.setattr(quick_record, name, None)
    for times_only in (False, True):
        assert QuickReader(times_only).read(stored(TRIALS[0])) is None
    assert RunFolder(tmp_path).trials() == TRIALS[:2]


def stored_classes(kind: Any) -> set[type]:
    """Every dataclass that a stored Trial is made of."""
    found = {kind} if is_dataclass(kind) else set()
    inside = get_type_hints(kind).values() if is_dataclass(kind) else get_args(kind)
    return found.union(*(stored_classes(one) for one in inside)) if inside else found


def test_no_two_keys_of_an_object_look_alike_without_what_ids_and_numbers_are_made_of() -> None:
    """Else a line with one of them twice could hide behind a line with both."""
    classes = stored_classes(Trial)
    assert len(classes) >= 12
    for kind in classes:
        names = [spec.name.encode() for spec in fields(kind)]
        names += {Trial: [b"schema", b"case_id", b"case"], Measurement: [b"variant_id", b"role"]}.get(kind, [])
        remains = [name.translate(None, NOT_STRUCTURE) for name in names]
        assert len(set(remains)) == len(names), kind
    assert not set(NOT_STRUCTURE) & set(b'{}[]":')
    assert set(string.digits.encode()) <= set(NOT_STRUCTURE)


def test_times_only_keeps_what_a_comparison_of_two_runs_reads() -> None:
    full, bare = (QuickReader(times_only).read(stored(TRIALS[0])) for times_only in (False, True))
    assert full == TRIALS[0]
    without = tuple(replace(m, **NO_TIMES) for m in full.measurements)
    assert bare == replace(full, measurements=without, **NO_REST) != full
    for m, kept in zip(full.measurements, bare.measurements, strict=True):
        same = {spec.name for spec in fields(Measurement)} - NO_TIMES.keys()
        assert {"variant", "status", "samples_s", "flags", "labels", "limits"} <= same
        assert all(getattr(m, name) == getattr(kept, name) for name in same)
    assert bare.measurements[0].stages is None


def test_equal_variants_of_a_file_are_one_object() -> None:
    reader = QuickReader()
    one, other = (reader.read(stored(trial)) for trial in TRIALS[:2])
    assert variant_id(one.measurements[0].variant) == variant_id(other.measurements[0].variant)
    assert one.measurements[0].variant is other.measurements[0].variant


def test_so_are_equal_names_of_kernels_of_which_there_are_many() -> None:
    reader = QuickReader(times_only=True)
    profiled = [trial for trial in TRIALS if trial.measurements[0].device_work is not None]
    one, other = (reader.read(stored(trial)).measurements[0].device_work for trial in profiled)
    assert one.kernels is other.kernels


@pytest.mark.parametrize("chunk_bytes", [1, 20_000, 10**9])
@pytest.mark.parametrize("large_bytes", [0, 10**9])
def test_a_file_is_read_alike_by_one_process_and_by_several(
    chunk_bytes: int, large_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(lines, "LARGE_BYTES", large_bytes)
    monkeypatch.setattr(forked, "processes", lambda: 2)
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"".join(stored(trial) + b"\n" for trial in TRIALS) + b'{"torn": ')
    assert list(lines.read(path, times_only=False)) == TRIALS
    assert f"results.jsonl:{len(TRIALS) + 1}: unfinished last line" in (RunFolder(tmp_path).torn_line() or "")
    path.write_bytes(stored(TRIALS[0]) + b"\nnonsense\n" + stored(TRIALS[1]) + b"\n")
    assert list(lines.read(path, times_only=False)) == [TRIALS[0], b"nonsense", TRIALS[1]]
    with pytest.raises(BenchError, match=r"results.jsonl:2: not a line of JSON"):
        RunFolder(tmp_path).trials()


def test_a_file_without_a_whole_line_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for text in (b"", b"{"):
        path.write_bytes(text)
        assert list(lines.read(path, times_only=False)) == []
        assert (RunFolder(tmp_path).torn_line() is None) == (text == b"")
