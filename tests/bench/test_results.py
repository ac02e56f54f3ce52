"""A Trial survives being stored; a damaged line is refused with the reason."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from synthetic import Builder, cases, failed

from bench.results import FAILURES, Status, Trial, UnreadableTrialError, from_record, to_record

TRIAL = Builder(passes=1, pairs=2).trials(cases([256]))[0]
RECORD = json.loads(json.dumps(to_record(TRIAL)))


def test_a_trial_comes_back_as_it_was_stored() -> None:
    assert from_record(RECORD) == TRIAL


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
