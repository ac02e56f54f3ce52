"""The one writer of a run folder: claims it, repairs a torn line, appends one Trial a line, loses nothing."""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Self

from bench.errors import BenchError
from bench.results import Trial, to_record
from bench.run_folder import CONFIG, ENVIRONMENT, RunFolder

LOCK = ".lock"
RUNS = Path("runs")


class RunWriter:
    """A claimed run folder. Use as a context manager: leaving it unlocks.

    Attributes:
        folder: the same folder for reading.
        repaired: what was cut off on opening, in one line, or None.
    """

    def __init__(self, path: Path) -> None:
        """Claim ``path``, which exists.

        Raises:
            BenchError: another process writes there (named by its pid), or the folder is not writable.
        """
        self.folder = RunFolder(path)
        with _file_errors(path):
            self._lock = _claim(path)
            try:
                self._results = os.open(
                    self.folder.results_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
                )
            except OSError:
                os.close(self._lock)
                raise
            self.repaired = self._cut_torn_line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._results)
        os.close(self._lock)  # gives up the flock

    @property
    def path(self) -> Path:
        return self.folder.path

    def append(self, trial: Trial) -> None:
        """Store one Trial: one write, flushed to disk. On failure the file is as it was before.

        Raises:
            BenchError: disk full, quota or I/O error; what was stored before is intact.
        """
        line = json.dumps(to_record(trial), separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._results).st_size
        with _file_errors(self.folder.results_path):
            try:
                if os.write(self._results, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._results)
            except OSError:
                os.ftruncate(self._results, size)
                raise

    def write_config(self, text: str) -> None:
        """Store the resolved sweep file.

        Raises:
            BenchError: not writable, disk full.
        """
        self._replace(CONFIG, text)

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Store what is known of machine and software.

        Raises:
            BenchError: not writable, disk full.
        """
        self._replace(ENVIRONMENT, json.dumps(environment, indent=2, default=str) + "\n")

    def _replace(self, name: str, text: str) -> None:
        """Whole or not at all: a kill must not leave half a config that then refuses to resume."""
        with _file_errors(self.path / name):
            draft = self.path / f".{name}.new"
            try:
                draft.write_text(text, encoding="utf-8")
                draft.replace(self.path / name)
            except OSError:
                draft.unlink(missing_ok=True)
                raise

    def _cut_torn_line(self) -> str | None:
        stored = self.folder.results_path.read_bytes()
        whole = stored.rfind(b"\n") + 1
        if whole == len(stored):
            return None
        os.ftruncate(self._results, whole)
        os.fsync(self._results)
        return f"{self.folder.results_path}: cut off a torn last line ({len(stored) - whole} bytes)"


def create(out: Path | None, config_path: Path) -> RunWriter:
    """Claim a fresh run folder: ``out``, or ``runs/<config stem>_<UTC>`` without it.

    Raises:
        BenchError: ``out`` is not empty, is no folder, is in use, or cannot be made.
    """
    if out is None:
        return RunWriter(_new_default(config_path))
    with _file_errors(out):
        _refuse_a_file(out)
        out.mkdir(parents=True, exist_ok=True)
        found = {entry.name for entry in out.iterdir()}
        if LOCK in found:
            os.close(_claim(out))  # names the other sweep, which is the better answer
    if found - {LOCK}:
        raise BenchError(f"{out}: not empty; add --resume to go on there, or name a new --out")
    return RunWriter(out)


def resume(out: Path, config_path: Path) -> RunWriter:
    """Claim a run folder to go on in; one that is missing or empty starts fresh.

    Raises:
        BenchError: ``out`` holds something else than a run, is in use, or is not writable.
    """
    with _file_errors(out):
        _refuse_a_file(out)
        started = out.exists() and any(entry.name != LOCK for entry in out.iterdir())
    if not started:
        return create(out, config_path)
    if not (out / CONFIG).is_file():
        raise BenchError(f"{out}: not a run folder (no {CONFIG}), so there is nothing to resume; name a new --out")
    return RunWriter(out)


def _refuse_a_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise BenchError(f"{out}: is a file, not a folder; name another --out")


def _new_default(config_path: Path) -> Path:
    """Two sweeps that start in the same second get different folders."""
    name = f"{config_path.stem}_{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in count(1):
        path = RUNS / (name if number == 1 else f"{name}-{number}")
        with _file_errors(path):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if path.is_dir():
                    continue
                raise
            return path
    raise AssertionError("count() has no end")


def _claim(path: Path) -> int:
    """Lock ``path`` for this process; the lock dies with it, whatever kills it."""
    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise BenchError(f"{path}: in use by another sweep (pid {pid}); wait for it or name another --out") from error
    except OSError:
        os.close(handle)
        raise
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """An operating-system error is the user's disk speaking: one line."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = f"{what}; every Trial stored before is intact, free some space and add --resume"
        raise BenchError(f"{path}: {what}") from error
