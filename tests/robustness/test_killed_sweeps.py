"""SIGKILL at random moments of a sweep: no finished Trial lost, none twice, no unreadable line; then it is resumed."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import effort
import pytest
from small_sweep import SWEEP_FILE, Script
from waiting import wait_for

from bench.results import from_record
from bench.run_folder import RunFolder
from bench.running import run_writer

TESTS = Path(__file__).parents[1]
TRIALS = 4
"""2 cases, 2 passes."""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    (tmp_path / "sweep.yaml").write_text(SWEEP_FILE)
    made = Script(tmp_path, monkeypatch)
    made.write({"do": "nap", "at": "check", "role": "T2o"})
    return made


def started(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        str(TESTS / "robustness" / "sweep_that_stores.py"),
        "sweep",
        "sweep.yaml",
        "--out",
        "run",
        "--device",
        "cpu",
        *more,
    ]
    root = Path(run_writer.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{TESTS}"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def lines(results: Path) -> list[bytes]:
    """Whole lines."""
    return results.read_bytes().split(b"\n")[:-1] if results.exists() else []


@pytest.mark.timeout(20 * effort.KILLS)
def test_sigkill_at_random_moments_loses_nothing_doubles_nothing_and_a_torn_line_is_repaired(
    tmp_path: Path, script: Script
) -> None:
    """The moments are spread over a sweep's whole life, its first import included."""
    draw = random.Random(17)
    results = tmp_path / "run" / "results.jsonl"
    kept: list[bytes] = []
    ended_by_kill = 0
    for _ in range(effort.KILLS):
        sweep = started(tmp_path, "--resume")
        try:
            sweep.wait(timeout=draw.uniform(0.2, 1.5))
        except subprocess.TimeoutExpired:
            ended_by_kill += 1
        sweep.kill()
        sweep.communicate()
        now = lines(results)
        assert now[: len(kept)] == kept, "what was stored stays as it was"
        found = [(trial.case_id, trial.pass_index) for trial in map(from_record, map(json.loads, now))]
        assert len(set(found)) == len(found) == len(now), "each Trial once, each line readable"
        kept = now
        if len(kept) == TRIALS:
            kept = []
            for path in sorted((tmp_path / "run").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    assert ended_by_kill > effort.KILLS // 2, "most were still at it"
    _, err = finished(tmp_path)
    assert len(RunFolder(tmp_path / "run").trials()) == TRIALS, err
    whole = lines(results)
    results.write_bytes(results.read_bytes()[:-30])
    _, err = finished(tmp_path)
    assert "results.jsonl: cut off a torn last line (" in err
    assert "(3 of 4 Trials are there)" in err
    assert lines(results)[:-1] == whole[:-1]
    assert [place(line) for line in lines(results)] == [place(line) for line in whole], "measured again"


def finished(folder: Path) -> tuple[str, str]:
    """Output and errors of a sweep that goes on to its end."""
    sweep = started(folder, "--resume")
    said = sweep.communicate(timeout=60)
    assert sweep.returncode == 0, said
    return said


def place(line: bytes) -> tuple[str, int]:
    record = json.loads(line)
    return record["case_id"], record["pass_index"]


def alive(pid: int) -> bool:
    """Whether the process still runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_worker_does_not_outlive_a_sweep_that_was_killed_and_the_folder_is_free(
    tmp_path: Path, script: Script
) -> None:
    script.write({"do": "stall", "at": "measure"})
    sweep = started(tmp_path)
    wait_for(lambda: bool(script.workers))
    pid = script.workers[0]["pid"]
    assert alive(pid)
    sweep.kill()
    sweep.communicate()
    with run_writer.resume(tmp_path / "run", Path("sweep.yaml")):
        wait_for(lambda: not alive(pid), limit_s=5)


def test_a_second_sweep_into_the_folder_is_refused_while_the_first_runs(tmp_path: Path, script: Script) -> None:
    script.write({"do": "stall", "at": "measure"})
    first = started(tmp_path)
    wait_for(lambda: bool(script.workers))
    try:
        for more in ((), ("--resume",)):
            second = started(tmp_path, *more)
            _, err = second.communicate(timeout=60)
            assert second.returncode == 2
            assert err.splitlines()[-1].startswith(f"error: run: in use by another sweep (pid {first.pid})")
    finally:
        first.send_signal(signal.SIGTERM)
        _, err = first.communicate(timeout=60)
    assert first.returncode == 130, err
