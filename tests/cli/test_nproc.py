"""``bench sweep --nproc``: several processes of one group, from the command line to the run folder."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from small_sweep import FAKE_WORKER, SWEEP_FILE, Script
from synthetic import H100
from two_ranks import BY_TORCHRUN, other_rank_at_work, start, trials

from bench.commands import sweep
from bench.errors import Exit
from bench.render import files
from bench.results import Status
from bench.run_folder import open_run
from bench.running import probe, supervisor
from bench.running.messages import Ready

COLLECTIVE = SWEEP_FILE.replace("link: local", "link: collective").replace("nvfp4-w4a16", "bf16")
CASE = "model: {hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 2}, precision: bf16"


def test_two_processes_measure_every_case_together(tmp_path: Path) -> None:
    done = start(tmp_path, "cpu", f"{CASE}, tokens: 5", "receive: [worst_case, exact]")
    out, err = done.communicate(timeout=60)
    assert done.returncode == Exit.DONE, err
    assert "2 ranks, each on " in err
    assert "measured comm (gloo all-to-all)" in " ".join(out.split())
    [trial] = trials(tmp_path)
    assert trial.machine.ranks == 2
    assert len(trial.measurements) == 6
    for m in trial.measurements:
        assert (m.status, m.reason) == (Status.OK, None)
        assert m.check is not None
        assert m.check.passed
        assert m.check.same_as_unsplit is (None if m.role == "T1" else True)
        assert len(m.samples_s) >= 4
        assert m.rank_skew is not None
        assert 0 <= m.rank_skew < 1
        assert m.stages is not None
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["group"] == {"nproc": 2, "backend": "gloo"}
    assert environment["machine"]["ranks"] == 2


def test_ranks_that_torchrun_started_are_joined(tmp_path: Path) -> None:
    done = start(tmp_path, "cpu", f"{CASE}, tokens: 5", "split_factor: 2", words=BY_TORCHRUN)
    _, err = done.communicate(timeout=120)
    assert done.returncode == Exit.DONE, err
    assert err.count("2 ranks, each on ") == 1, "one sweep, not one a process"
    [trial] = trials(tmp_path)
    assert trial.machine.ranks == 2
    assert {m.status for m in trial.measurements} == {Status.OK}


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_a_rank_that_is_killed_ends_its_case_and_the_sweep_goes_on(tmp_path: Path) -> None:
    sweeping = start(tmp_path, "cpu", f"{CASE}, tokens: [5, 32]", "split_factor: 2", round_min="150 ms")
    try:
        os.kill(other_rank_at_work(sweeping, tmp_path), signal.SIGKILL)
        _, err = sweeping.communicate(timeout=60)
    finally:
        sweeping.kill()
    assert sweeping.returncode == Exit.FAILED_CASES, err
    first, second = trials(tmp_path)
    failed = [m for m in first.measurements if m.status is Status.ERROR]
    assert failed
    assert all((m.reason or "").startswith("rank 1 killed by SIGKILL") for m in failed)
    assert all("in phase " in (m.reason or "") for m in failed)
    assert {m.status for m in second.measurements} == {Status.OK}
    assert "--resume --device cpu --nproc 2 --filter" in err


Bench = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "Sweep", partial(supervisor.Sweep, command=FAKE_WORKER))
    monkeypatch.setattr(files, "write", lambda model, folder: [])
    Path("small.yaml").write_text(COLLECTIVE)
    script = Script(tmp_path, monkeypatch)
    ready = Ready(script.machine, {"visible_gpus": ["H100", "H100"]})
    monkeypatch.setattr(sweep, "probe", lambda device: replace(ready, machine=script.machine))
    monkeypatch.setattr(probe, "probe", lambda device: replace(ready, machine=script.machine))
    return script


def test_one_worker_a_pass_is_asked_for_all_ranks(bench: Bench, script: Script) -> None:
    assert bench("sweep small.yaml --nproc 4 --out run")[0] == Exit.DONE
    assert [worker["ranks"] for worker in script.workers] == [4, 4]


def test_without_nproc_a_sweep_is_one_process(bench: Bench, script: Script) -> None:
    Path("small.yaml").write_text(SWEEP_FILE)
    assert bench("sweep small.yaml --out run")[0] == Exit.DONE
    assert [worker["ranks"] for worker in script.workers] == [1, 1]
    assert "group" not in open_run(Path("run")).environment()


def test_too_few_processes_for_every_case_leave_no_folder(bench: Bench) -> None:
    code, _, err = bench("sweep small.yaml --nproc 2 --out run")
    assert code == Exit.BAD_INPUT
    assert "link collective needs 4 processes" in err
    assert not Path("run").exists()


def test_more_ranks_than_gpus_are_refused_in_one_line(bench: Bench, script: Script) -> None:
    script.machine = H100
    code, _, err = bench("sweep small.yaml --nproc 4 --out run")
    assert code == Exit.BAD_INPUT
    assert err == "error: --nproc 4: each rank needs a GPU of its own, torch sees 2 (allowed: 1..2)\n"
    assert not Path("run").exists()


@pytest.mark.parametrize("nproc", ["0", "-1", "two"])
def test_a_number_of_processes_that_is_none_is_refused(bench: Bench, nproc: str) -> None:
    code, _, err = bench(f"sweep small.yaml --nproc {nproc}")
    assert code == Exit.BAD_INPUT
    assert err.startswith("error: Invalid value for '--nproc'")
    assert err.count("\n") == 1


def test_the_repeat_commands_ask_for_as_many_processes(bench: Bench, script: Script) -> None:
    script.write({"do": "die", "at": "check", "role": "T2o", "tokens": 32})
    code, out, err = bench("sweep small.yaml --nproc 4 --out run --json")
    assert code == Exit.FAILED_CASES
    assert (
        "  repeat with: bench sweep small.yaml --out run --resume --device auto --nproc 4 --filter tokens=32\n" in err
    )
    report = json.loads(out)["report"]
    [command] = {entry["command"] for entry in report["failures"]}
    assert "--device cpu --nproc 4 --filter" in command
    assert "bench sweep run/config.resolved.yaml --nproc 4" in report["commands"]


def test_a_run_of_other_many_processes_is_not_resumed(bench: Bench) -> None:
    assert bench("sweep small.yaml --nproc 4 --out run")[0] == Exit.DONE
    Path("small.yaml").write_text(COLLECTIVE.replace("ep_size: 4", "ep_size: 2"))
    code, _, err = bench("sweep small.yaml --nproc 2 --out run --resume")
    assert code == Exit.BAD_INPUT
    assert "--resume: machine.ranks: the run was measured with 4, now it is 2\n" in err


def test_a_plan_is_as_if_there_were_so_many_gpus(bench: Bench, script: Script) -> None:
    script.machine = H100
    code, out, _ = bench("plan small.yaml --nproc 4")
    assert code == Exit.DONE
    assert "all cases run here" in out
    assert "4 ranks, each on NVIDIA H100 80GB HBM3" in out
    assert "measured comm (NCCL all-to-all)" in out
    code, out, _ = bench("plan small.yaml")
    assert code == Exit.DONE
    assert "no case runs here" in out
    assert "link collective needs 4 processes" in " ".join(out.split())


def test_the_config_for_two_gpus_runs_on_two_gpus(bench: Bench, script: Script) -> None:
    script.machine = H100
    code, out, _ = bench("plan multigpu-nccl --nproc 2")
    assert code == Exit.DONE
    assert out.startswith("14 cases, 98 variants, 3 passes: all cases run here, about ")
