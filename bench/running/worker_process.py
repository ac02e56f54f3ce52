"""One worker process: how it is started, heard and ended. It decides nothing (see supervisor). Torch-free."""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench.errors import BenchError
from bench.printable import printable
from bench.running.messages import Event, Job, dump_job, load_event

EXIT_GRACE_S = 10.0
"""A worker that said its last word may take this long to leave: a CUDA context is slow to tear down."""
EXIT_POLL_S = 0.01
LAST_WORDS_BYTES = 4096
LAST_WORDS_LINES = 3
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def worker_command(*arguments: str) -> tuple[str, ...]:
    """How a worker starts. ``-P``: a file of the user's folder must not shadow a module of ours."""
    return (sys.executable, "-P", "-m", "bench.worker", *arguments)


def worker_environment() -> dict[str, str]:
    """This process's environment, in which ``bench`` is found also where it is not installed."""
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{inherited}" if inherited else root}


def one_line(text: str) -> str:
    """The last non-empty lines of what a process printed, joined for an error of one line, its colours left out."""
    lines = [line.strip() for line in COLOUR.sub("", text).splitlines() if line.strip()]
    return printable(" | ".join(lines[-LAST_WORDS_LINES:]))


class WorkerExitedError(Exception):
    """The worker is gone (or has closed its end) and every event it sent was read."""


class Worker:
    """A running worker in a process group of its own. Use as a context manager: leaving it kills what is left."""

    def __init__(self, command: Sequence[str], job: Job, log_path: Path) -> None:
        """Start it.

        Args:
            command: without ``--events-fd``, which is added here.
            job: read by the worker from its standard input.
            log_path: appended to with whatever the worker prints.

        Raises:
            BenchError: a full disk, or no room for a process.
        """
        self._log_path = log_path
        self._events, send = os.pipe()
        try:
            self._process = self._start([*command, "--events-fd", str(send)], job, send)
        except OSError as error:
            os.close(self._events)
            raise BenchError(f"no worker can be started: {error}") from error
        finally:
            os.close(send)
        self._partial = b""
        self._lines: deque[bytes] = deque()

    def _start(self, command: Sequence[str], job: Job, send: int) -> "subprocess.Popen[bytes]":
        # A file, not a pipe: a Job may be larger than a pipe holds, and writing must not wait for `import torch`.
        with tempfile.TemporaryFile() as stdin, self._log_path.open("ab") as log:
            stdin.write(dump_job(job))
            stdin.seek(0)
            self._log_start = log.tell()
            return subprocess.Popen(
                command,
                stdin=stdin,
                stdout=log,
                stderr=log,
                env=worker_environment(),
                pass_fds=(send,),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end(grace_s=0)
        os.close(self._events)

    def next_event(self, timeout_s: float) -> Event | None:
        """The next event, or None if none came within ``timeout_s``.

        Raises:
            WorkerExitedError: there will be no more.
        """
        if not self._lines:
            self._receive(timeout_s)
        return load_event(self._lines.popleft()) if self._lines else None

    def _receive(self, timeout_s: float) -> None:
        gone = self._has_exited()  # asked before reading: what it sent before it went is in the pipe by now
        readable, _, _ = select.select([self._events], [], [], 0 if gone else timeout_s)
        if not readable:
            if gone:  # a grandchild may hold the pipe open for ever
                raise WorkerExitedError
            return
        chunk = os.read(self._events, 1 << 16)
        if not chunk:
            raise WorkerExitedError
        *whole, self._partial = (self._partial + chunk).split(b"\n")
        self._lines.extend(whole)

    def end(self, grace_s: float) -> int:
        """Give it ``grace_s`` to leave, then kill its whole group. Returns the exit code, -N for signal N."""
        if self._process.returncode is None:
            patience_ends = time.monotonic() + grace_s
            while not self._has_exited() and time.monotonic() < patience_ends:
                time.sleep(EXIT_POLL_S)
            # Not reaped yet, so the group id is still ours; children it left behind go with it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return self._process.returncode

    def _has_exited(self) -> bool:
        """Without reaping it: its group must stay killable."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def with_last_words(self, what: str) -> str:
        """``what``, and the last lines that the worker printed, in one line."""
        said = self._last_words()
        return f"{what}; it said: {said}" if said else what

    def _last_words(self) -> str:
        with self._log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - LAST_WORDS_BYTES))
            return one_line(log.read().decode(errors="replace"))


def exit_words(code: int) -> str:
    """``killed by SIGKILL`` or ``exited with code 3``."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
