"""After repeated failures of one kind the rest of that kind is skipped, and said so; what may still run is run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweep import FAKE_WORKER, Script, small_case
from synthetic import CPU

from bench.cases import Case
from bench.results import Status, Trial
from bench.running import resume, run_writer
from bench.running.failures import failures
from bench.running.giving_up import GIVEN_UP, GivingUp
from bench.running.supervisor import Sweep, supervise
from bench.settings import MeasureSettings

OK, ERROR, OOM, SKIPPED = Status.OK, Status.ERROR, Status.OOM, Status.SKIPPED


class Quiet:
    def stepped(self, pass_index: int, case: Case, step: object) -> None: ...

    def finished(self, trial: Trial) -> None: ...


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(tmp_path, monkeypatch)


def swept(folder: Path, cases: Sequence[Case], passes: int = 1) -> list[Trial]:
    with run_writer.create(folder / "run", Path("config.yaml")) as run:
        supervise(Sweep([cases] * passes, CPU, MeasureSettings(passes=passes), run, Quiet(), FAKE_WORKER))
        return run.folder.trials()


def ended(trials: Sequence[Trial], role: str) -> list[Status]:
    return [m.status for trial in trials for m in trial.measurements if m.role == role]


def test_the_rest_of_a_kind_is_skipped_after_three_failures_alike(tmp_path: Path, script: Script) -> None:
    script.write({"do": "error", "at": "check", "role": "T2o"})
    cases = [small_case(tokens) for tokens in (16, 32, 48, 64, 80)]
    trials = swept(tmp_path, cases)
    assert ended(trials, "T2o") == [ERROR] * 3 + [SKIPPED] * 2
    assert ended(trials, "T1") == ended(trials, "T2s") == [OK] * 5, "other kinds go on"
    assert len(script.workers) == 4, "no worker is spent on the rest"
    said = trials[-1].measurements[-1].reason
    assert said is not None
    assert said.startswith(
        "skipped after 3 failures of this kind: error in phase check, the last: made up error, in phase"
    )
    assert len(failures(trials)) == 3, "so the sweep ends with exit code 5, and a skip is no failure"


def test_a_case_of_which_nothing_is_left_is_stored_without_a_worker(tmp_path: Path, script: Script) -> None:
    script.write({"do": "die", "at": "build"})
    trials = swept(tmp_path, [small_case(tokens) for tokens in (16, 32, 48, 64, 80)], passes=2)
    assert ended(trials, "T1") == ([ERROR] * 3 + [SKIPPED] * 2) * 2
    assert len(trials) == 10
    assert len(script.workers) == 3


def test_a_success_between_them_is_no_streak(tmp_path: Path, script: Script) -> None:
    script.write(*({"do": "error", "at": "check", "role": "T2o", "tokens": tokens} for tokens in (16, 32, 64, 80)))
    trials = swept(tmp_path, [small_case(tokens) for tokens in (16, 32, 48, 64, 80, 96)])
    assert ended(trials, "T2o") == [ERROR, ERROR, OK, ERROR, ERROR, OK]


def test_another_way_to_fail_begins_again(tmp_path: Path, script: Script) -> None:
    do = {16: "error", 32: "error", 48: "oom", 64: "error"}
    script.write(*({"do": what, "at": "check", "role": "T2o", "tokens": tokens} for tokens, what in do.items()))
    trials = swept(tmp_path, [small_case(tokens) for tokens in (16, 32, 48, 64, 80)])
    assert ended(trials, "T2o") == [ERROR, ERROR, OOM, ERROR, OK]


def test_what_did_not_fit_says_nothing_of_smaller_cases(tmp_path: Path, script: Script) -> None:
    script.write(*({"do": "oom", "at": "check", "role": "T2o", "tokens": tokens} for tokens in (512, 1024, 2048, 4096)))
    trials = swept(tmp_path, [small_case(tokens) for tokens in (512, 1024, 2048, 4096, 16)])
    assert ended(trials, "T2o") == [OOM, OOM, OOM, SKIPPED, OK]


def test_what_was_timed_in_one_pass_is_run_in_the_next(tmp_path: Path, script: Script) -> None:
    script.write(*({"do": "error", "at": "check", "role": "T2o", "tokens": tokens} for tokens in (32, 48, 64)))
    trials = swept(tmp_path, [small_case(tokens) for tokens in (16, 32, 48, 64, 80)], passes=2)
    by_pass = [ended([t for t in trials if t.pass_index == index], "T2o") for index in (0, 1)]
    assert by_pass[0] == [OK, ERROR, ERROR, ERROR, SKIPPED]
    assert by_pass[1] == by_pass[0]


def test_a_kind_is_a_backend_and_a_precision(tmp_path: Path) -> None:
    giving_up = GivingUp()
    cases = [small_case(tokens) for tokens in (16, 32, 48)]
    for case in cases:
        giving_up.failed(case, case.variants[-1], ERROR, "build", "no compiler")
    last = small_case(64)
    assert giving_up.reason(last, last.variants[-1]) == f"{GIVEN_UP}: error in phase build, the last: no compiler"
    assert giving_up.reason(last, last.variants[0]) is None
    assert giving_up.reason(last, replace(last.variants[-1], experts="triton")) is None
    assert giving_up.reason(last, replace(last.variants[-1], engine="threads")) is None
    other = replace(last, workload=replace(last.workload, precision="bf16", dispatch_dtype="bf16"))
    assert giving_up.reason(other, other.variants[-1]) is None


def test_the_same_case_in_three_passes_is_one_failure() -> None:
    giving_up, case = GivingUp(), small_case(16)
    for _ in range(3):
        giving_up.failed(case, case.variants[-1], ERROR, "build", "flaky")
    assert giving_up.reason(small_case(32), small_case(32).variants[-1]) is None


def test_a_resumed_sweep_tries_again_what_was_given_up(tmp_path: Path, script: Script) -> None:
    script.write({"do": "error", "at": "check", "role": "T2o"})
    cases = [small_case(tokens) for tokens in (16, 32, 48, 64)]
    trials = swept(tmp_path, cases)
    assert ended(trials, "T2o")[-1] is SKIPPED
    assert resume.remaining(cases, cases, trials, passes=1) == (tuple(cases),)
