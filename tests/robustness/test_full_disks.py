"""A disk that is full, a folder that takes no file: one line that says so, and nothing that was stored is lost."""

import errno
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small_sweep import SWEEP_FILE, Script
from synthetic import CPU

from bench import cli
from bench.commands import sweep as sweep_command
from bench.errors import Exit
from bench.run_folder import RunFolder
from bench.running import run_writer, supervisor
from bench.settings import MeasureSettings

TESTS = Path(__file__).parents[1]
ROOT = Path(run_writer.__file__).parents[2]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    (tmp_path / "sweep.yaml").write_text(SWEEP_FILE)
    return Script(tmp_path, monkeypatch)


def sweep(folder: Path, *more: str, file_limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """``file_limit``: bytes that a file may have, as on a disk that has no more."""
    # in a program of its own: a limit set here would hold for pytest too, and SIGXFSZ kills unless ignored
    code = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"limit = {file_limit}; limit and resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    arguments = ["sweep", "sweep.yaml", "--out", "run", "--device", "cpu", *more]
    # Coverage's own data file would meet the limit, too.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run(
        [sys.executable, "-c", code, str(TESTS / "robustness" / "sweep_that_stores.py"), *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": f"{ROOT}:{TESTS}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_file_that_may_not_grow_ends_the_sweep_in_one_line_and_keeps_what_was_stored(
    tmp_path: Path, script: Script
) -> None:
    whole = sweep(tmp_path)
    assert whole.returncode == 0, whole.stderr
    results = tmp_path / "run" / "results.jsonl"
    first = results.read_bytes().split(b"\n")[0] + b"\n"
    size = len(results.read_bytes())
    results.write_bytes(first)
    limited = sweep(tmp_path, "--resume", file_limit=size * 5 // 8)
    assert limited.returncode == 2, limited.stderr
    stopped, way_on = limited.stderr.splitlines()[-2:]
    assert stopped.startswith("error: run/results.jsonl: "), limited.stderr
    assert os.strerror(errno.ENOSPC) in stopped
    assert way_on.startswith("error: Trials kept in run: 2; go on with: bench sweep sweep.yaml --out run --resume")
    assert results.read_bytes().startswith(first)
    assert len(RunFolder(tmp_path / "run").trials()) == 2
    again = sweep(tmp_path, "--resume")
    assert again.returncode == 0, again.stderr
    assert len(RunFolder(tmp_path / "run").trials()) == 4
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY, "ours is as it was"


@pytest.mark.parametrize("name", ["config.resolved.yaml", "environment.json"])
def test_a_full_disk_while_the_run_begins_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(self: Path, text: str, encoding: str) -> int:
        with self.open("w", encoding=encoding) as file:
            file.write(text[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with run_writer.create(tmp_path / "run", Path("sweep.yaml")) as run:
        monkeypatch.setattr(Path, "write_text", full)
        write = {"config.resolved.yaml": run.write_config, "environment.json": run.write_environment}[name]
        with pytest.raises(run_writer.BenchError, match=rf"{name}: No space left on device; every Trial"):
            write("schema: 1\n")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "results.jsonl"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused_before_anything_runs(tmp_path: Path, script: Script) -> None:
    (tmp_path / "run").mkdir(mode=0o500)
    done = sweep(tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: run: {os.strerror(errno.EACCES)}"
    assert script.workers == []


@pytest.mark.parametrize("opens", [run_writer.create, run_writer.resume])
def test_a_read_only_file_system_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opens) -> None:
    (tmp_path / "run").mkdir()
    opened = os.open

    def refuse(path: Path, flags: int, *mode: int, **more: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *mode, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(run_writer.BenchError) as refused:
        opens(tmp_path / "run", Path("sweep.yaml"))
    assert str(refused.value) == f"{tmp_path / 'run'}: {os.strerror(errno.EROFS)}"
    assert list((tmp_path / "run").iterdir()) == []


def test_a_full_temporary_folder_or_no_worker_log_ends_the_sweep_in_one_line(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep(tmp_path)
    assert whole.returncode == 0, whole.stderr
    results = tmp_path / "run" / "results.jsonl"
    first = results.read_bytes().split(b"\n")[0] + b"\n"
    results.write_bytes(first)
    log = tmp_path / "run" / "worker.log"
    log.unlink()
    log.mkdir()
    no_log = sweep(tmp_path, "--resume")
    log.rmdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with (
        run_writer.resume(tmp_path / "run", Path("sweep.yaml")) as run,
        pytest.raises(run_writer.BenchError, match=r"no temporary folder for the sweep: .*No such file"),
    ):
        supervisor.supervise(supervisor.Sweep([], CPU, MeasureSettings(), run, None))  # type: ignore[arg-type]
    assert no_log.returncode == 2, no_log.stderr
    stopped, way_on = no_log.stderr.splitlines()[-2:]
    assert stopped.startswith(f"error: no worker can be started: [Errno {errno.EISDIR}] "), no_log.stderr
    assert way_on.startswith("error: Trials kept in run: 1; go on with: ")
    assert results.read_bytes() == first


def test_an_internal_error_whose_traceback_cannot_be_kept_still_ends_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("made up")

    monkeypatch.setattr(sweep_command, "load", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    assert cli.main(["sweep", "any.yaml"]) == Exit.INTERNAL
    assert capsys.readouterr().err == (
        "internal error: RuntimeError: made up; its traceback cannot be kept: No such file or directory "
        "(BENCH_TRACEBACK=1 prints it)\n"
    )
