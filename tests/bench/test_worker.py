"""The worker as a process: what it answers to a probe, and what it says while it runs a job."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain_schedule import build
from small_sweep import small_case

from bench.cases import Case
from bench.errors import Exit
from bench.pass_context import CaseFailureError
from bench.results import Status, from_record
from bench.running import progress_file
from bench.running.messages import (
    EXIT_AFTER_FAILURE,
    Event,
    Failed,
    Finished,
    Job,
    JobCase,
    Ready,
    Step,
    dump_job,
    load_event,
)
from bench.running.worker_process import worker_command, worker_environment
from bench.settings import MeasureSettings
from bench.worker import failed, first_line
from moe_impl.options import SplitPolicy, Variant
from moe_impl.overlap.driver import Run
from moe_impl.overlap.lanes import OneLane
from moe_impl.overlap.threads import OpFailedError, run_threads
from moe_impl.stages import Stage


def test_a_probe_is_answered_with_one_ready_line() -> None:
    command = worker_command("--probe", "--device", "cpu")
    answer = subprocess.run(command, env=worker_environment(), capture_output=True, check=True)
    ready = load_event(answer.stdout.splitlines()[-1])
    assert isinstance(ready, Ready)
    assert ready.machine.device == "cpu"
    assert ready.environment["packages"]["torch"]


def test_a_probe_for_a_gpu_that_is_not_there_is_refused_in_one_line() -> None:
    hidden = worker_environment() | {"CUDA_VISIBLE_DEVICES": ""}
    answer = subprocess.run(worker_command("--probe", "--device", "cuda"), env=hidden, capture_output=True, text=True)
    assert answer.returncode == Exit.BAD_INPUT
    assert answer.stderr == "--device cuda: torch sees no CUDA GPU (allowed here: auto, cpu)\n"


def run_job(folder: Path, *cases: Case) -> tuple[int, list[Event]]:
    """Exit code and events of a worker that got these cases."""
    progress = folder / "progress"
    progress_file.reset(progress)
    settings = MeasureSettings(rounds=1, round_min_s=0.0, warm_up_s=0.0)
    job = Job(2, tuple(JobCase(case) for case in cases), settings, "cpu", str(progress))
    receive, send = os.pipe()
    # Events of a job this small fit into the pipe: read after the worker has left.
    done = subprocess.run(
        worker_command("--events-fd", str(send)),
        input=dump_job(job),
        env=worker_environment(),
        pass_fds=(send,),
        stderr=subprocess.PIPE,
    )
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        return done.returncode, [load_event(line) for line in pipe.read().splitlines()]


def test_a_job_ends_in_a_trial_a_case(tmp_path: Path) -> None:
    cases = (small_case(8), small_case(9))
    code, events = run_job(tmp_path, *cases)
    assert code == Exit.DONE
    assert isinstance(events[0], Ready)
    trials = [from_record(event.record) for event in events if isinstance(event, Finished)]
    assert [trial.case_id for trial in trials] == [case.case_id for case in cases]
    for trial in trials:
        assert (trial.pass_index, trial.machine.device) == (2, "cpu")
        assert {m.status for m in trial.measurements} == {Status.OK}


def test_a_case_that_raises_ends_the_worker_with_what_and_where(tmp_path: Path) -> None:
    good = small_case(8)
    three = Variant("torch", split_factor=3, split=SplitPolicy("ratio", 0.4))  # what a supervisor would have skipped
    code, events = run_job(tmp_path, replace(good, variants=(three,)), good)
    assert code == EXIT_AFTER_FAILURE
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.phase, last.status) == ("check", "error")
    assert last.reason == "ValueError: a ratio cuts a batch in 2, not in 3"
    assert not any(isinstance(event, Finished) for event in events)


def test_a_worker_ends_in_the_middle_of_a_case_when_nobody_hears_it_any_more(tmp_path: Path) -> None:
    progress_file.reset(tmp_path / "progress")
    for_an_hour = MeasureSettings(rounds=1, round_min_s=3600.0, warm_up_s=0.0, case_limit_s=7200.0)
    job = Job(0, (JobCase(small_case(8)),), for_an_hour, "cpu", str(tmp_path / "progress"))
    receive, send = os.pipe()
    command = worker_command("--events-fd", str(send))
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=worker_environment(), pass_fds=(send,)) as worker:
        try:
            os.close(send)
            assert worker.stdin is not None
            worker.stdin.write(dump_job(job))
            worker.stdin.close()
            with os.fdopen(receive, "rb") as pipe:
                for line in pipe:
                    event = load_event(line)
                    if isinstance(event, Step) and event.phase == "measure":
                        break
            assert worker.wait(timeout=5) == EXIT_AFTER_FAILURE
        finally:
            worker.kill()


@pytest.mark.parametrize(
    ("raised", "status"), [(torch.OutOfMemoryError, "oom"), (MemoryError, "oom"), (ValueError, "error")]
)
def test_an_op_that_raises_in_an_engines_thread_keeps_its_status(raised: type[Exception], status: str) -> None:
    schedule = build(1, 2, "yield_after")

    def raising(state: object, layer: int) -> None:
        raise raised("made up")

    bodies = dict.fromkeys(Stage, raising)
    failure = CaseFailureError("measure", "some id")
    with pytest.raises(OpFailedError) as caught:
        run_threads(Run(schedule, bodies, [None, None], OneLane(), lambda position: None))  # type: ignore[list-item]
    failure.__cause__ = caught.value
    told = failed("case", failure)
    assert told.status == status
    assert told.reason == f"OpFailedError: layer 0 ubatch 0 route: {raised.__name__}: made up"


@pytest.mark.parametrize(
    ("message", "shown"), [("one\ntwo", "one"), ("", "no message"), (" \n", "no message"), ("x" * 999, "x" * 300)]
)
def test_of_a_long_message_the_first_line_is_told(message: str, shown: str) -> None:
    assert first_line(RuntimeError(message)) == shown
