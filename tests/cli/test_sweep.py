"""``bench sweep`` from the command line to the run folder, with a fake worker."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from small_sweep import FAKE_WORKER, SWEEP_FILE, Script

from bench import cli
from bench.commands import sweep
from bench.errors import Exit
from bench.render import files
from bench.results import Status
from bench.run_folder import open_run
from bench.running import changes, supervisor
from bench.running.messages import Ready

WRITE = files.write
DRIVER = Path(__file__).parent.parent / "sweep_with_fake_worker.py"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "Sweep", partial(supervisor.Sweep, command=FAKE_WORKER))
    monkeypatch.setattr(files, "write", lambda model, folder: [])  # drawing plots is most of a fake sweep's time
    Path("small.yaml").write_text(SWEEP_FILE)
    script = Script(tmp_path, monkeypatch)
    monkeypatch.setattr(sweep, "probe", lambda device: Ready(script.machine, {}))
    return script


def trials(run: str) -> list[tuple[int, int]]:
    return [(t.pass_index, t.workload.tokens) for t in open_run(Path(run)).trials()]


def test_a_sweep_leaves_a_whole_run_folder(bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "write", WRITE)
    code, out, err = bench("sweep small.yaml --out run")
    assert code == Exit.DONE, err
    names = {path.name for path in Path("run").iterdir()}
    assert {"config.resolved.yaml", "environment.json", "results.jsonl", "report.html", "report.md", "plots"} <= names
    assert trials("run") == [(0, 16), (0, 32), (1, 16), (1, 32)]
    assert open_run(Path("run")).environment()["machine"]["name"] == "Synthetic CPU"
    assert open_run(Path("run")).config().measure.case_limit_s == 5.0
    assert "sweep: cases 2 x passes 2 = 4 Trials; on Synthetic CPU; writes to run" in err
    assert "3/4 pass 2/2, tokens=16: 3 ok" in err
    assert "Functional check on a CPU" in out
    assert f"wrote {Path('run/report.html')}" in out


def test_without_out_the_run_goes_to_runs(bench) -> None:
    code, _, _ = bench("sweep small.yaml --filter tokens=16")
    assert code == Exit.DONE
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("small_")
    assert trials(str(run)) == [(0, 16), (1, 16)]


def test_json_is_one_document_on_standard_output(bench, script: Script) -> None:
    script.write({"do": "oom", "at": "check", "role": "T2s", "tokens": 16})
    code, out, _ = bench("sweep small.yaml --out run --json")
    answer = json.loads(out)
    assert code == Exit.FAILED_CASES
    assert answer["run"] == "run"
    (failed,) = answer["failed"]
    assert (failed["variant"], failed["status"], failed["passes"]) == ("serial x2 torch", "oom", [0, 1])


def test_failed_cases_end_in_exit_code_5_with_the_command_that_repeats_them(bench, script: Script) -> None:
    script.write({"do": "die", "at": "check", "role": "T2o", "tokens": 32})
    code, _, err = bench("sweep small.yaml --out run")
    assert code == Exit.FAILED_CASES
    assert "failed: tokens=32\n  streams x2 torch: error: worker killed by SIGKILL, in phase check" in err
    (command,) = [line.removeprefix("  repeat with: ") for line in err.splitlines() if "repeat with" in line]
    assert command == "bench sweep small.yaml --out run --resume --device auto --filter tokens=32"

    script.write()
    code, _, err = bench(command.removeprefix("bench "))
    assert code == Exit.DONE
    assert [w["tokens"] for w in script.workers] == [[32], [32]]
    assert all(m.status is Status.OK for t in open_run(Path("run")).trials() for m in t.measurements)


def test_the_reports_own_command_heals_the_run(bench, script: Script) -> None:
    script.write({"do": "die", "at": "check", "role": "T2o", "tokens": 32})
    _, out, _ = bench("sweep small.yaml --out run --json")
    (command,) = {entry["command"] for entry in json.loads(out)["report"]["failures"]}
    assert command == (
        "bench sweep run/config.resolved.yaml --out run --resume --device cpu "
        "--filter tokens=32,precision=nvfp4-w4a16,link=local,experts=torch,split_factor=2"
    )
    script.write()
    assert bench(command.removeprefix("bench "))[0] == Exit.DONE
    assert [w["tokens"] for w in script.workers] == [[32], [32]]
    assert all(m.status is Status.OK for t in open_run(Path("run")).trials() for m in t.measurements)


def test_a_skip_is_no_failure(bench) -> None:
    Path("small.yaml").write_text(SWEEP_FILE.replace("torch", "[torch, triton]"))
    code, out, err = bench("sweep small.yaml --out run --filter tokens=16")
    assert code == Exit.DONE
    assert "3 ok, 3 skipped" in err
    assert "experts triton needs a CUDA GPU" in out


def test_a_sweep_of_which_nothing_runs_leaves_no_folder(bench) -> None:
    Path("small.yaml").write_text(SWEEP_FILE.replace("torch", "triton"))
    code, _, err = bench("sweep small.yaml --out run")
    assert code == Exit.BAD_INPUT
    assert "error: none of the 2 cases can run on Synthetic CPU" in err
    assert "experts triton needs a CUDA GPU" in err
    assert not Path("run").exists()


def test_resume_needs_out(bench) -> None:
    code, _, err = bench("sweep small.yaml --resume")
    assert (code, err) == (2, "error: --resume: needs --out DIR, the run folder to go on in\n")


def test_a_folder_in_use_before_is_refused_without_resume(bench) -> None:
    assert bench("sweep small.yaml --out run --filter tokens=16")[0] == Exit.DONE
    code, _, err = bench("sweep small.yaml --out run")
    assert (code, err) == (2, "error: run: not empty; add --resume to go on there, or name a new --out\n")


def test_resume_of_a_finished_run_does_nothing_and_exits_0(bench, script: Script) -> None:
    bench("sweep small.yaml --out run")
    before = Path("run/results.jsonl").read_bytes()
    script.write()
    code, out, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.DONE
    assert "nothing left to do (4 of 4 Trials are there)" in err
    assert "Functional check on a CPU" in out
    assert script.workers == []
    assert Path("run/results.jsonl").read_bytes() == before


def test_resume_goes_on_where_the_first_run_was_torn(bench, script: Script) -> None:
    bench("sweep small.yaml --out run")
    results = Path("run/results.jsonl")
    results.write_bytes(results.read_bytes()[:-40])
    script.write()
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.DONE
    assert "repaired run/results.jsonl: cut off a torn last line" in err
    assert "3 of 4 Trials are there" in err
    assert [(w["pass"], w["tokens"]) for w in script.workers] == [(1, [32])]
    assert trials("run") == [(0, 16), (0, 32), (1, 16), (1, 32)]


def test_resume_takes_new_cases_and_new_variants(bench, script: Script) -> None:
    bench("sweep small.yaml --out run --filter tokens=16")
    Path("small.yaml").write_text(SWEEP_FILE.replace("experts: torch", "experts: torch, split_factor: [2, 4]"))
    script.write()
    code, _, _ = bench("sweep small.yaml --out run --resume")
    assert code == Exit.DONE
    assert [w["tokens"] for w in script.workers] == [[16, 32], [16, 32]]
    assert {len(t.measurements) for t in open_run(Path("run")).trials()} == {5}
    assert "split_factor: [2, 4]" in Path("run/config.resolved.yaml").read_text()


def test_resume_refuses_a_changed_measure_and_changes_nothing(bench) -> None:
    bench("sweep small.yaml --out run --filter tokens=16")
    before = {path: path.read_bytes() for path in Path("run").glob("*.*")}
    Path("small.yaml").write_text(SWEEP_FILE.replace("passes: 2", "passes: 3"))
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.BAD_INPUT
    assert "error: measure.passes: the run was measured with 2, the sweep file now says 3" in err
    assert before == {path: path.read_bytes() for path in Path("run").glob("*.*")}


def test_resume_on_another_machine_is_refused(bench, script: Script) -> None:
    bench("sweep small.yaml --out run --filter tokens=16")
    script.machine = replace(script.machine, name="Another CPU")
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.BAD_INPUT
    assert err == (
        "error: --resume: machine.name: the run was measured with Synthetic CPU, now it is Another CPU\n"
        f"error: --resume: {changes.WAY_ON}\n"
    )


def test_resume_with_changed_code_is_refused_unless_told_otherwise_and_then_recorded(
    bench, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(source: str) -> None:
        found = {"bench": {"version": "0.1.0", "checkout": None, "source": source}}
        monkeypatch.setattr(sweep, "probe", lambda device: Ready(script.machine, found))

    code("aaaa")
    bench("sweep small.yaml --out run --filter tokens=16")
    before = {path: path.read_bytes() for path in Path("run").glob("*.*")}
    code("bbbb")
    told = "code: the run was measured with 0.1.0, source aaaa, now it is 0.1.0, source bbbb"
    exit_code, _, err = bench("sweep small.yaml --out run --resume")
    assert exit_code == Exit.BAD_INPUT
    assert err == f"error: --resume: {told}\nerror: --resume: {changes.WAY_ON}\n"
    assert before == {path: path.read_bytes() for path in Path("run").glob("*.*")}

    script.write({"do": "die", "at": "check", "role": "T2o", "tokens": 32})
    exit_code, _, err = bench("sweep small.yaml --out run --resume --anyway")
    assert exit_code == Exit.FAILED_CASES
    assert f"--anyway: {told}\n" in err
    assert "repeat with: bench sweep small.yaml --out run --resume --device auto --anyway --filter tokens=32\n" in err
    stored = open_run(Path("run")).environment()
    assert stored["bench"]["source"] == "aaaa"
    assert list(stored[changes.RECORD].values()) == [told]


def test_a_run_of_an_older_version_goes_on_with_a_note(bench, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    bench("sweep small.yaml --out run --filter tokens=16")
    found = {"bench": {"version": "0.1.0", "checkout": None, "source": "aaaa"}}
    monkeypatch.setattr(sweep, "probe", lambda device: Ready(script.machine, found))
    exit_code, _, err = bench("sweep small.yaml --out run --resume")
    assert exit_code == Exit.DONE
    assert f"{changes.CODE_UNKNOWN}\n" in err


def test_anyway_means_nothing_without_resume(bench) -> None:
    assert bench("sweep small.yaml --out run --anyway")[::2] == (
        2,
        "error: --anyway: needs --resume, it allows what a resumed sweep would refuse\n",
    )


def test_an_environment_that_was_damaged_is_named_and_the_run_not_gone_on_with(bench) -> None:
    bench("sweep small.yaml --out run --filter tokens=16")
    Path("run/environment.json").write_text("{")
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.BAD_INPUT
    assert err.startswith("error: run/environment.json: cannot be read: ")


def test_resume_with_a_sweep_file_that_lacks_a_stored_case_is_refused_and_changes_nothing(bench) -> None:
    bench("sweep small.yaml --out run --filter tokens=16")
    before = {path: path.read_bytes() for path in Path("run").glob("*.*")}
    Path("small.yaml").write_text(SWEEP_FILE.replace("[16, 32]", "[32, 64]"))
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.BAD_INPUT
    assert err.startswith("error: --resume: the run holds 1 case that the sweep file does not list, such as model=h64-")
    assert "tokens=16," in err
    assert err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in Path("run").glob("*.*")}


def test_resume_takes_other_thresholds_for_they_measure_nothing(bench, script: Script) -> None:
    bench("sweep small.yaml --out run")
    script.write()
    Path("small.yaml").write_text(SWEEP_FILE.replace("passes: 2", "passes: 2, decide_beyond: 0.5 %, same_within: 2 %"))
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.DONE
    assert "nothing left to do" in err
    assert script.workers == []
    assert open_run(Path("run")).config().measure.same_within == 0.02


def test_an_internal_error_says_what_is_kept(bench, script: Script) -> None:
    script.write({"do": "die", "at": "start", "pass": 1})
    code, _, err = bench("sweep small.yaml --out run")
    assert code == Exit.INTERNAL
    assert "killed by SIGKILL before it was ready" in err
    assert "error: Trials kept in run: 2; go on with: bench sweep small.yaml --out run --resume" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_in_order_and_resume_goes_on(
    bench, script: Script, tmp_path: Path, number: signal.Signals
) -> None:
    script.write({"do": "stall", "at": "check", "tokens": 32})
    root = str(Path(cli.__file__).parent.parent)
    sweeping = subprocess.Popen(
        [sys.executable, str(DRIVER), "sweep", "small.yaml", "--out", "run", "--filter", "tokens=16,tokens=32"],
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.PIPE,
        text=True,
    )
    results = tmp_path / "run" / "results.jsonl"
    while not (results.exists() and results.read_bytes().endswith(b"\n")):
        assert sweeping.poll() is None
        time.sleep(0.02)
    sweeping.send_signal(number)
    _, err = sweeping.communicate(timeout=20)
    assert sweeping.returncode == Exit.INTERRUPTED
    assert f"error: interrupted by {number.name}\n" in err
    resume = "bench sweep small.yaml --out run --resume --device auto --filter tokens=16,tokens=32"
    assert f"error: Trials kept in run: 1; go on with: {resume}\n" in err
    with pytest.raises(ProcessLookupError):
        os.kill(script.workers[0]["pid"], 0)

    script.write()
    assert bench(resume.removeprefix("bench "))[0] == Exit.DONE
    assert trials("run") == [(0, 16), (0, 32), (1, 16), (1, 32)]


def test_a_second_sweep_into_a_folder_in_use_is_refused_by_pid(bench, script: Script, tmp_path: Path) -> None:
    script.write({"do": "stall", "at": "check"})
    root = str(Path(cli.__file__).parent.parent)
    sweeping = subprocess.Popen(
        [sys.executable, str(DRIVER), "sweep", "small.yaml", "--out", "run"],
        env=os.environ | {"PYTHONPATH": root},
        stderr=subprocess.DEVNULL,
    )
    while not script.workers:
        assert sweeping.poll() is None
        time.sleep(0.02)
    for resume in ("", " --resume"):
        code, _, err = bench(f"sweep small.yaml --out run{resume}")
        assert code == Exit.BAD_INPUT
        assert f"run: in use by another sweep (pid {sweeping.pid})" in err
    sweeping.send_signal(signal.SIGTERM)
    assert sweeping.wait(timeout=20) == Exit.INTERRUPTED


def test_failures_are_named_by_what_tells_the_cases_apart(bench, script: Script) -> None:
    Path("small.yaml").write_text(SWEEP_FILE.replace("precision: nvfp4-w4a16", "precision: [nvfp4-w4a16, bf16]"))
    script.write({"do": "oom", "at": "build", "tokens": 32})
    _, _, err = bench("sweep small.yaml --out run --filter tokens=32")
    assert "failed: tokens=32,precision=nvfp4-w4a16\n" in err
    assert "failed: tokens=32,precision=bf16\n" in err
    line = "off torch, serial x2 torch, streams x2 torch: oom: made up oom, in phase build"
    assert err.count(f"\n  {line}") == 2
    assert err.count(f"\n    {line}") == 2, "as it happened, in the first pass: then the cases are left out"
