"""Jobs and events survive the pipe, one JSON line each."""

import math

import pytest
from pydantic import ValidationError
from small_sweep import small_case
from synthetic import CPU, H100, Builder, cases

from bench.results import Measurement, Status, from_record, to_record
from bench.running.messages import (
    Event,
    Failed,
    Finished,
    Job,
    JobCase,
    Ready,
    Step,
    dump_event,
    dump_job,
    load_event,
    load_job,
)
from bench.settings import MeasureSettings


def test_a_job_comes_back_as_it_was_sent() -> None:
    case = small_case()
    settled = (Measurement(case.variants[0], Status.SKIPPED, "made up"),)
    job = Job(3, (JobCase(case, settled), JobCase(cases([256])[0])), MeasureSettings(rounds=2), "cpu", "/x/progress")
    line = dump_job(job)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert load_job(line) == job


@pytest.mark.parametrize(
    "event",
    [
        Ready(H100, {"settings": {}}),
        Ready(CPU, {}),
        Step("case", "build"),
        Step("case", "measure", "variant", "round 1 of 6\nwith a line break"),
        Failed("case", "check", None, "oom", "CUDA out of memory"),
    ],
)
def test_an_event_comes_back_as_it_was_sent(event: Event) -> None:
    line = dump_event(event)
    assert line.count(b"\n") == 1
    assert load_event(line) == event


def test_a_nan_error_of_a_wrong_output_arrives_as_nan() -> None:
    trial = Builder(passes=1, pairs=1).trials(cases([256]))[0]
    record = to_record(trial)
    wrong = record["measurements"][0]
    wrong |= {"status": "incorrect", "reason": "x", "samples_s": [], "places": [], "rounds": [], "stages": None}
    wrong["check"] |= {"relative_error": math.nan, "worst_row_ratio": math.inf, "passed": False}
    arrived = load_event(dump_event(Finished(record)))
    assert isinstance(arrived, Finished)
    check = from_record(arrived.record).measurements[0].check
    assert check is not None
    assert math.isnan(check.relative_error)
    assert check.worst_row_ratio == math.inf


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"kind": "party"}', b'{"kind": "step", "case_id": "a"}'])
def test_a_line_that_is_no_event_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        load_event(line)


def test_a_line_that_is_no_job_is_refused() -> None:
    with pytest.raises(ValidationError):
        load_job(b'{"pass_index": 0}')
