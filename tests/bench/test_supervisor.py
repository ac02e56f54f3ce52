"""Whatever a worker does, the sweep goes on: every case of every pass ends in one Trial."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweep import FAKE_WORKER, Script, small_case
from synthetic import CPU, H100

from bench import planning
from bench.cases import Case
from bench.errors import BenchError, Exit
from bench.results import ExpertsChoice, Status, Trial
from bench.running import run_writer, settled, supervisor, worker_process
from bench.running.messages import Step
from bench.running.supervisor import Sweep, supervise
from bench.settings import MeasureSettings
from moe_impl.options import Machine

OK, ERROR, SKIPPED = Status.OK, Status.ERROR, Status.SKIPPED


class Heard:
    """A Listener that remembers."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int, str]] = []
        self.trials: list[Trial] = []

    def stepped(self, pass_index: int, case: Case, step: Step) -> None:
        self.steps.append((pass_index, case.workload.tokens, step.phase))

    def finished(self, trial: Trial) -> None:
        self.trials.append(trial)


class Run:
    """A supervised sweep in a folder of its own."""

    def __init__(self, folder: Path, script: Script) -> None:
        self.folder, self.script, self.heard = folder, script, Heard()

    def __call__(
        self,
        cases: Sequence[Case],
        passes: int = 1,
        limit_s: float = 20.0,
        startup_limit_s: float = 20.0,
        machine: Machine = CPU,
    ) -> list[Trial]:
        with run_writer.create(self.folder / "run", Path("config.yaml")) as run:
            measure = MeasureSettings(passes=passes, case_limit_s=limit_s)
            supervise(Sweep([cases] * passes, machine, measure, run, self.heard, FAKE_WORKER, startup_limit_s))
            assert run.folder.trials() == self.heard.trials, "one stored Trial a case and pass"
            return run.folder.trials()


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(tmp_path, monkeypatch)


@pytest.fixture
def run(tmp_path: Path, script: Script) -> Run:
    return Run(tmp_path, script)


def outcomes(trial: Trial) -> list[tuple[str, Status]]:
    return [(m.role, m.status) for m in trial.measurements]


def reason(trial: Trial, role: str) -> str:
    return next(m.reason or "" for m in trial.measurements if m.role == role)


def test_every_pass_is_one_fresh_worker_for_all_cases(run: Run, script: Script) -> None:
    trials = run([small_case(16), small_case(32)], passes=2)
    assert [(t.pass_index, t.workload.tokens) for t in trials] == [(0, 16), (0, 32), (1, 16), (1, 32)]
    assert all(outcomes(t) == [("T1", OK), ("T2s", OK), ("T2o", OK)] for t in trials)
    assert [(w["pass"], w["tokens"]) for w in script.workers] == [(0, [16, 32]), (1, [16, 32])]
    assert len({w["pid"] for w in script.workers}) == 2
    assert {w["device"] for w in script.workers} == {"cpu"}


def test_the_listener_hears_of_every_phase_and_trial(run: Run) -> None:
    run([small_case(16)])
    assert [phase for _, _, phase in run.heard.steps] == ["build", "check", "check", "check", "measure"]
    assert len(run.heard.trials) == 1


@pytest.mark.parametrize("status", ["oom", "error"])
def test_a_variant_that_raises_is_settled_for_all_passes_and_the_rest_is_run(
    run: Run, script: Script, status: str
) -> None:
    script.write({"do": status, "at": "check", "role": "T2s", "tokens": 16})
    first, other, second, _ = run([small_case(16), small_case(32)], passes=2)
    assert outcomes(first) == outcomes(second) == [("T1", OK), ("T2s", Status(status)), ("T2o", OK)]
    assert outcomes(other) == [("T1", OK), ("T2s", OK), ("T2o", OK)]
    assert reason(first, "T2s") == (
        f"made up {status}, in phase check, variant serial x2 torch, last op issued: layer 0 ubatch 1 dispatch"
    )
    assert reason(second, "T2s") == f"left out since pass 1: {reason(first, 'T2s')}"
    assert [(w["pass"], w["tokens"], w["settled"][0]) for w in script.workers] == [
        (0, [16, 32], []),
        (0, [16, 32], ["T2s"]),
        (1, [16, 32], ["T2s"]),
    ]


def test_a_failed_t1_does_not_stop_the_split_variants(run: Run, script: Script) -> None:
    script.write({"do": "oom", "at": "check", "role": "T1"})
    (trial,) = run([small_case(16)])
    assert outcomes(trial) == [("T1", Status.OOM), ("T2s", OK), ("T2o", OK)]


def test_a_worker_killed_mid_case_costs_only_its_variant(run: Run, script: Script) -> None:
    script.write({"do": "die", "at": "check", "role": "T2o", "tokens": 32})
    first, second, third = run([small_case(16), small_case(32), small_case(64)])
    assert outcomes(second) == [("T1", OK), ("T2s", OK), ("T2o", ERROR)]
    assert outcomes(first) == outcomes(third) == [("T1", OK), ("T2s", OK), ("T2o", OK)]
    assert reason(second, "T2o") == (
        "worker killed by SIGKILL, in phase check, variant streams x2 torch, "
        "last op issued: layer 0 ubatch 1 dispatch; it said: about to die"
    )
    assert [w["tokens"] for w in script.workers] == [[16, 32, 64], [32, 64]]


def test_a_death_between_variants_is_blamed_on_the_one_whose_op_was_last(run: Run, script: Script) -> None:
    script.write({"do": "exit", "at": "measure", "role": "T2s", "worker": 0})
    (trial,) = run([small_case(16)])
    assert outcomes(trial) == [("T1", OK), ("T2s", ERROR), ("T2o", OK)]
    assert "worker exited with code 3, in phase measure, variant serial x2 torch" in reason(trial, "T2s")


def test_variants_may_fail_one_after_the_other(run: Run, script: Script) -> None:
    script.write({"do": "die", "at": "check", "role": "T1"}, {"do": "oom", "at": "check", "role": "T2o"})
    (trial,) = run([small_case(16)])
    assert outcomes(trial) == [("T1", ERROR), ("T2s", OK), ("T2o", Status.OOM)]
    assert [w["settled"][0] for w in script.workers] == [[], ["T1"], ["T1", "T2o"]]


def test_when_every_variant_has_failed_the_trial_needs_no_worker_more(run: Run, script: Script) -> None:
    script.write({"do": "oom", "at": "check"})
    first, second = run([small_case(16)], passes=2)
    assert outcomes(first) == outcomes(second) == [("T1", Status.OOM), ("T2s", Status.OOM), ("T2o", Status.OOM)]
    assert len(script.workers) == 3


def test_a_failure_of_the_whole_case_settles_what_is_left_and_goes_on(run: Run, script: Script) -> None:
    script.write({"do": "oom", "at": "build", "tokens": 16})
    first, second, third, _ = run([small_case(16), small_case(32)], passes=2)
    assert outcomes(first) == outcomes(third) == [("T1", Status.OOM), ("T2s", Status.OOM), ("T2o", Status.OOM)]
    assert reason(first, "T1") == "made up oom, in phase build"
    assert outcomes(second) == [("T1", OK), ("T2s", OK), ("T2o", OK)]
    assert [w["tokens"] for w in script.workers] == [[16, 32], [32], [32]]


def test_a_worker_that_stops_moving_is_a_hang(run: Run, script: Script) -> None:
    script.write({"do": "stall", "at": "check", "role": "T2o", "tokens": 16})
    first, second = run([small_case(16), small_case(32)], limit_s=0.4)
    assert outcomes(first) == [("T1", OK), ("T2s", OK), ("T2o", Status.HANG)]
    assert reason(first, "T2o") == (
        "case_limit of 0.4 s exceeded without a sign of progress in its last half, "
        "in phase check, variant streams x2 torch, last op issued: layer 0 ubatch 1 dispatch"
    )
    assert outcomes(second) == [("T1", OK), ("T2s", OK), ("T2o", OK)]


def test_a_worker_that_still_issues_ops_at_the_limit_is_a_timeout(run: Run, script: Script) -> None:
    script.write({"do": "slow", "at": "measure", "role": "T1", "tokens": 16})
    (trial,) = run([small_case(16)], limit_s=0.4)
    assert outcomes(trial) == [("T1", Status.TIMEOUT), ("T2s", OK), ("T2o", OK)]
    assert "case_limit of 0.4 s exceeded, in phase measure, variant off torch, last op issued: " in reason(trial, "T1")


def test_a_stuck_worker_is_dead_afterwards(run: Run, script: Script) -> None:
    script.write({"do": "stall", "at": "build"})
    (trial,) = run([small_case(16)], limit_s=0.3)
    assert {m.status for m in trial.measurements} == {Status.HANG}
    assert trial.elapsed_s >= 0.3
    with pytest.raises(ProcessLookupError):
        os.kill(script.workers[0]["pid"], 0)


def test_the_limit_is_each_cases_own(run: Run, script: Script) -> None:
    cases = [small_case(tokens) for tokens in (16, 32, 48)]
    started = time.monotonic()
    script.write(*({"do": "nap", "at": "build", "tokens": case.workload.tokens} for case in cases))
    trials = run(cases, limit_s=0.8)
    assert time.monotonic() - started > 0.8
    assert all(m.status is OK for trial in trials for m in trial.measurements)


def test_children_of_a_dead_worker_do_not_keep_the_sweep_waiting(run: Run, script: Script) -> None:
    script.write({"do": "leave a child", "at": "check", "role": "T1"})
    started = time.monotonic()
    (trial,) = run([small_case(16)])
    assert outcomes(trial) == [("T1", ERROR), ("T2s", OK), ("T2o", OK)]
    assert time.monotonic() - started < 10


def test_half_an_event_is_no_event(run: Run, script: Script) -> None:
    script.write({"do": "say", "at": "check", "role": "T2o"})
    (trial,) = run([small_case(16)])
    assert outcomes(trial) == [("T1", OK), ("T2s", OK), ("T2o", ERROR)]


@pytest.mark.parametrize("at", ["ready", "leave"])
def test_a_worker_that_ends_without_reason_gets_one_more_chance(run: Run, script: Script, at: str) -> None:
    script.write({"do": "exit", "at": at, "worker": 0})
    (trial,) = run([small_case(16)])
    assert {m.status for m in trial.measurements} == {OK}
    assert len(script.workers) == (2 if at == "ready" else 1)


@pytest.mark.parametrize(
    ("do", "role", "said"),
    [
        ("die", "T2s", "worker killed by SIGKILL, in phase cross-check, variant serial x2 torch, last op issued: "),
        ("error", "T2s", "made up error, in phase cross-check, variant serial x2 torch, last op issued: "),
        ("die", None, "worker killed by SIGKILL, in phase cross-check; it said: about to die"),
    ],
)
def test_a_cross_check_that_ends_its_process_is_named_and_costs_no_result(
    run: Run, script: Script, do: str, role: str | None, said: str
) -> None:
    script.write({"do": do, "at": "cross-check", "role": role}, gpu=True)
    trials = run([small_case(16), small_case(32), small_case(64)], passes=2)
    assert all(outcomes(trial) == [("T1", OK), ("T2s", OK), ("T2o", OK)] for trial in trials)
    assert not any(m.flags for trial in trials[:3] for m in trial.measurements), "another pass has nothing to check"
    for m in (m for trial in trials[3:] for m in trial.measurements):
        assert m.flags[0].startswith(f"timer not checked against a profiler: {said}")
    assert [w["pass"] for w in script.workers] == [0, 1, 1]
    assert all(w["tokens"] == [16, 32, 64] for w in script.workers), "the case under way runs again, with what follows"


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("die", "worker killed by SIGKILL, tried for experts auto; it said: about to die"),
        ("error", "made up error, tried for experts auto"),
        ("stall", "case_limit of 0.3 s exceeded without a sign of progress in its last half, tried for experts auto"),
    ],
)
def test_a_backend_that_ends_its_process_is_not_chosen_and_costs_no_variant(
    run: Run, script: Script, do: str, said: str
) -> None:
    script.write({"do": do, "at": "choose experts", "candidate": "humming"}, gpu=True)
    limit_s = 0.3 if do == "stall" else 20.0
    trials = run([small_case(experts=("auto",))], passes=2, limit_s=limit_s, machine=H100)
    for trial in trials:
        assert outcomes(trial) == [("T1", OK), ("T2s", OK), ("T2o", OK)]
        assert trial.experts_choice == ExpertsChoice("triton", out={"humming": said})
    assert [w["pass"] for w in script.workers] == [0, 0, 1], "it is tried once"


def test_two_workers_in_a_row_that_get_nowhere_end_the_sweep(run: Run, script: Script) -> None:
    script.write({"do": "exit", "at": "ready"})
    with pytest.raises(
        BenchError, match=r"two workers in a row .* exited with code 3; it said: about to exit"
    ) as ended:
        run([small_case(16)])
    assert ended.value.code == Exit.INTERNAL
    assert len(script.workers) == 2


def test_a_worker_that_never_begins_its_case_is_ended(run: Run, script: Script) -> None:
    script.write({"do": "stall", "at": "ready"})
    with pytest.raises(BenchError, match=r"two workers in a row .* case_limit of 0\.3 s exceeded"):
        run([small_case(16)], limit_s=0.3)


def test_a_worker_that_dies_before_it_is_ready_ends_the_sweep(run: Run, script: Script) -> None:
    script.write({"do": "die", "at": "start"})
    with pytest.raises(BenchError, match=r"killed by SIGKILL before it was ready; it said: about to die") as ended:
        run([small_case(16)])
    assert ended.value.code == Exit.INTERNAL


def test_a_worker_that_does_not_get_ready_ends_the_sweep(run: Run, script: Script) -> None:
    script.write({"do": "stall", "at": "start"})
    with pytest.raises(BenchError, match=r"not ready within 0\.2 s") as ended:
        run([small_case(16)], startup_limit_s=0.2)
    assert ended.value.code == Exit.INTERNAL


def test_trials_before_an_end_are_kept(run: Run, script: Script) -> None:
    script.write({"do": "die", "at": "start", "pass": 1})
    with pytest.raises(BenchError):
        run([small_case(16), small_case(32)], passes=2)
    assert [(t.pass_index, t.workload.tokens) for t in run.heard.trials] == [(0, 16), (0, 32)]


def test_skips_are_settled_before_a_worker_starts(run: Run, script: Script) -> None:
    (trial,) = run([small_case(16, experts=("torch", "triton"))])
    assert [m.status for m in trial.measurements] == [OK, OK, OK, SKIPPED, SKIPPED, SKIPPED]
    assert trial.measurements[3].reason == "experts triton needs a CUDA GPU"
    assert script.workers[0]["settled"] == [["T1", "T2s", "T2o"]]
    assert not trial.failed


def test_a_case_of_skips_alone_needs_no_worker(run: Run, script: Script) -> None:
    skipped, ran = run([small_case(16, experts=("triton",)), small_case(32)])
    assert {m.status for m in skipped.measurements} == {SKIPPED}
    assert {m.status for m in ran.measurements} == {OK}
    assert [w["tokens"] for w in script.workers] == [[32]]


def test_a_variant_whose_t1_cannot_run_is_skipped_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        settled, "unsupported_reason", lambda work, link, variant, machine: "too big" if variant.role == "T1" else None
    )
    assert [(m.role, m.reason) for m in settled.skips(small_case(16), CPU)] == [
        ("T1", "too big"),
        ("T2s", "its T1 cannot run: too big"),
        ("T2o", "its T1 cannot run: too big"),
    ]


def test_a_case_of_which_no_overlapped_variant_runs_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        settled, "unsupported_reason", lambda work, link, variant, machine: "too big" if variant.role == "T2o" else None
    )
    asked = small_case(16)
    assert [(m.role, m.reason) for m in settled.skips(asked, CPU)] == [
        ("T1", "no overlapped variant of this case can run"),
        ("T2s", "no overlapped variant of this case can run"),
        ("T2o", "too big"),
    ]
    with pytest.raises(BenchError, match="none of the 1 cases can run"):
        settled.refuse_if_nothing_runs([asked], CPU)
    plan = planning.make_plan([asked], MeasureSettings(), CPU)
    assert (plan.running, plan.estimated_s) == ((), 0.0)
    alone = replace(asked, variants=asked.variants[:1])
    settled.refuse_if_nothing_runs([alone], CPU)
    assert len(planning.make_plan([alone], MeasureSettings(), CPU).running) == 1


def test_a_sweep_of_which_no_case_can_run_is_refused_with_the_reasons() -> None:
    nothing = [small_case(16, experts=("triton",)), small_case(32, experts=("triton",))]
    with pytest.raises(BenchError) as refused:
        settled.refuse_if_nothing_runs(nothing, CPU)
    assert refused.value.code == Exit.BAD_INPUT
    assert refused.value.problems[0] == "none of the 2 cases can run on Synthetic CPU (cpu):"
    assert "in 2 of them: experts triton needs a CUDA GPU" in refused.value.problems[1]
    settled.refuse_if_nothing_runs([*nothing, small_case(16)], CPU)
    settled.refuse_if_nothing_runs(nothing, H100)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_kills_the_worker_and_keeps_what_is_done(run: Run, script: Script, number: int) -> None:
    script.write({"do": "stall", "at": "check", "tokens": 32})
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}

    def send_when_stalled() -> None:
        while not run.heard.steps or run.heard.steps[-1][1] != 32:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send_when_stalled)
    sender.start()
    with pytest.raises(BenchError, match=f"interrupted by {signal.Signals(number).name}") as ended:
        run([small_case(16), small_case(32)])
    sender.join()
    assert ended.value.code == Exit.INTERRUPTED
    assert [t.workload.tokens for t in run.heard.trials] == [16]
    with pytest.raises(ProcessLookupError):
        os.kill(script.workers[0]["pid"], 0)
    assert handlers == {one: signal.getsignal(one) for one in handlers}


def test_what_workers_print_is_kept_in_the_log(run: Run, script: Script) -> None:
    script.write({"do": "oom", "at": "check", "role": "T1"})
    run([small_case(16)])
    assert "about to oom" in (run.folder / "run" / "worker.log").read_text()


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert worker_process.exit_words(-40) == "killed by signal 40"


def test_the_supervisor_does_not_import_torch() -> None:
    root = str(Path(supervisor.__file__).parents[2])
    code = "import sys; from bench.running import probe, resume, supervisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}).returncode == 0
