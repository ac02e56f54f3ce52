"""A Trial survives being stored; a damaged line is refused with the reason."""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic import Builder, cases, failed

from bench.results import FAILURES, Status, Trial, UnreadableTrialError, from_record, to_record
from moe_impl.options import SplitPolicy

TRIAL = Builder(passes=1, pairs=2).trials(cases([256]))[0]
RECORD = json.loads(json.dumps(to_record(TRIAL)))


def test_a_trial_comes_back_as_it_was_stored() -> None:
    assert from_record(RECORD) == TRIAL


def test_a_record_from_before_a_field_with_a_default_is_read() -> None:
    old = copy.deepcopy(RECORD)
    for m in old["measurements"]:
        del m["effective_split_factor"], m["variant"]["split"]
    assert from_record(old) == TRIAL


def test_a_split_and_what_became_of_it_are_stored() -> None:
    t1, t2s, t2o = TRIAL.measurements
    one = replace(t2o.variant, split=SplitPolicy("ratio", 0.1, min_tokens=300))
    trial = replace(TRIAL, measurements=(t1, t2s, replace(t2o, variant=one, effective_split_factor=1, stages=None)))
    record = json.loads(json.dumps(to_record(trial)))
    assert record["measurements"][2]["variant"]["split"] == {"policy": "ratio", "ratio": 0.1, "min_tokens": 300}
    assert from_record(record) == trial


def test_the_stored_reports_are_read_with_the_ids_they_were_stored_with() -> None:
    """``from_record`` compares every stored case_id and variant_id with what this program makes of the case."""
    stored = sorted((Path(__file__).parents[2] / "reports").glob("*/results.jsonl"))
    assert stored
    for path in stored:
        for line in path.read_text().splitlines():
            assert from_record(json.loads(line)).measurements


def test_a_line_starts_with_what_tells_it_apart() -> None:
    assert list(RECORD)[:4] == ["schema", "case_id", "pass_index", "case"]
    assert RECORD["case"].keys() == {"workload", "link"}
    assert [m["role"] for m in RECORD["measurements"]] == ["T1", "T2s", "T2o"]
    assert RECORD["case_id"] == TRIAL.case_id


def test_a_variant_that_never_ran_comes_back_too() -> None:
    broken = replace(TRIAL, measurements=(failed(TRIAL.measurements[0], Status.OOM), *TRIAL.measurements[1:]))
    again = from_record(json.loads(json.dumps(to_record(broken))))
    assert again == broken
    assert (again.failed, TRIAL.failed) == (True, False)


def test_a_skip_is_no_failure() -> None:
    skipped = replace(TRIAL, measurements=(failed(TRIAL.measurements[0], Status.SKIPPED),))
    assert not skipped.failed
    assert {Status.OOM, Status.TIMEOUT, Status.HANG, Status.INCORRECT, Status.ERROR} == FAILURES


def test_a_trial_knows_its_variants() -> None:
    assert TRIAL.variant_ids == {m.variant_id for m in TRIAL.measurements}
    assert len(TRIAL.variant_ids) == 3


def first(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = record["measurements"][0]
    return found


def ops(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = first(record)["stages"]["op_s"]
    return found


Damage = Callable[[dict[str, Any]], object]
DAMAGES: list[tuple[str, Damage, str]] = [
    ("another schema", lambda r: r.update(schema=2), "schema 2, this program reads 1"),
    ("no schema", lambda r: r.pop("schema"), "schema None"),
    ("another case id", lambda r: r.update(case_id="0" * 16), "does not match its case"),
    ("no case id", lambda r: r.pop("case_id"), "case_id None does not match"),
    ("a changed case", lambda r: r["case"]["workload"].update(tokens=257), "does not match its case"),
    ("a changed link", lambda r: r["case"]["link"].update(comm_sms=3), "does not match its case"),
    ("a changed variant", lambda r: r["measurements"][0]["variant"].update(split_factor=8), "a variant_id does not"),
    ("no variant id", lambda r: r["measurements"][0].pop("variant_id"), "a variant_id does not match"),
    ("an unknown status", lambda r: r["measurements"][0].update(status="great"), r"measurements\.0\.status"),
    ("no variant", lambda r: r["measurements"][0].pop("variant"), r"measurements\.0\.variant: Field required"),
    ("no link", lambda r: r["case"].pop("link"), "link: Field required"),
    ("no case", lambda r: r.pop("case"), "case or measurements: KeyError"),
    ("case is a number", lambda r: r.update(case=5), "case or measurements: TypeError"),
    ("no measurements", lambda r: r.pop("measurements"), "case or measurements: KeyError"),
    ("measurements are null", lambda r: r.update(measurements=None), "case or measurements: TypeError"),
    ("a measurement is a text", lambda r: r.update(measurements=["x"]), "case or measurements: AttributeError"),
    ("a sample is a word", lambda r: r["measurements"][0]["samples_s"].append("fast"), r"samples_s\.4"),
    ("a sample is no number", lambda r: first(r)["samples_s"].__setitem__(1, math.nan), r"samples_s\.1: nan"),
    ("a sample is endless", lambda r: first(r)["samples_s"].__setitem__(1, math.inf), r"samples_s\.1: inf"),
    ("a sample takes no time", lambda r: first(r)["samples_s"].__setitem__(0, 0), r"samples_s\.0: 0\.0, expected"),
    ("a sample is quoted", lambda r: first(r)["samples_s"].__setitem__(0, "1.0"), r"samples_s\.0: .*valid number"),
    ("a place is true", lambda r: first(r)["places"].__setitem__(0, True), r"places\.0: .*valid integer"),
    ("a place is missing", lambda r: first(r)["places"].pop(), "samples_s 4, places 3, rounds 4"),
    ("a round too many", lambda r: first(r)["rounds"].append(1), "samples_s 4, places 4, rounds 5"),
    ("an unknown stage", lambda r: ops(r).update(brew=ops(r)["route"]), r"op_s\.brew: no stage, known: atten"),
    ("a stage is missing", lambda r: ops(r).pop("gemm1"), r"measurements\.0\.stages\.op_s: lacks gemm1"),
    ("a layer is missing", lambda r: ops(r)["gemm1"].pop(), r"op_s\.gemm1: not 2 layers of 1 micro-batches"),
    ("a micro-batch too many", lambda r: ops(r)["gemm1"][0].append(1.0), r"op_s\.gemm1: not 2 layers of 1"),
    ("a stage takes nan", lambda r: ops(r)["gemm1"][0].__setitem__(0, math.nan), r"op_s\.gemm1\.0\.0: nan"),
    ("a stage runs backwards", lambda r: ops(r)["gemm1"][0].__setitem__(0, -1e-6), r"op_s\.gemm1\.0\.0: -1e-06"),
    ("an endless span", lambda r: first(r)["stages"].update(span_s=math.inf), r"stages\.span_s: inf"),
    ("a pass before the first", lambda r: r.update(pass_index=-1), "pass_index: -1, expected at least 0"),
    ("a variant twice", lambda r: r["measurements"].append(first(r)), "the same variant twice"),
    ("nothing measured", lambda r: r["measurements"].clear(), "measurements: none"),
    ("ok, though its check failed", lambda r: first(r)["check"].update(passed=False), r"0\.check\.passed: false"),
    ("an unknown field", lambda r: r.update(mood="good"), "mood: unknown field"),
    ("an unknown inner field", lambda r: first(r)["check"].update(luck=1), r"measurements\.0\.check\.luck: unknown"),
    ("an unknown variant field", lambda r: first(r)["variant"].update(luck=1), r"0\.variant\.luck: unknown field"),
    ("a shape nobody could run", lambda r: r["case"]["workload"]["model"].update(top_k=0), "top_k must lie in"),
]


@pytest.mark.parametrize(("damage", "message"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_a_damaged_record_is_refused_with_the_reason(damage: Damage, message: str) -> None:
    record = copy.deepcopy(RECORD)
    damage(record)
    with pytest.raises(UnreadableTrialError, match=message):
        from_record(record)


@pytest.mark.parametrize("value", [None, 3, [], "text"])
def test_a_line_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(UnreadableTrialError, match="expected an object"):
        from_record(value)


def test_the_field_a_record_lacks_is_named() -> None:
    for name in ("machine", "timer", "pass_index"):
        record = copy.deepcopy(RECORD)
        del record[name]
        with pytest.raises(UnreadableTrialError, match=name):
            from_record(record)
    assert isinstance(from_record(RECORD), Trial)
