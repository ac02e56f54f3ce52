"""The other ranks of a worker: rank 0 starts them, and leaves with the first that fails. Torch-free.

They live in rank 0's process group, which the supervisor kills as a whole. A socket joins each of them to rank 0: on it
a rank tells its failure, and by its end each learns that the other is gone. Whoever waits in a collective for a rank
that left would wait for ever.
"""

import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bench.running import progress_file
from bench.running.messages import (
    EXIT_AFTER_FAILURE,
    Event,
    Failed,
    Finished,
    Job,
    Step,
    dump_event,
    dump_job,
    load_event,
)
from bench.running.worker_process import exit_words, one_line, worker_command

Tell = Callable[[Event], None]

BLAME_S = 1.0
"""When rank 0 fails it waits this long for another rank's failure, which may be why its collective failed."""


@dataclass
class _Other:
    rank: int
    process: subprocess.Popen[bytes]
    socket: socket.socket
    output: Path
    said: bytes = b""

    def failure(self) -> Failed | None:
        """What it told, once it has told a whole line."""
        event = load_event(self.said) if self.said.endswith(b"\n") else None
        return event if isinstance(event, Failed) else None

    def last_words(self) -> str:
        return one_line(self.output.read_text(errors="replace"))


class OtherRanks:
    """Ranks 1 to N - 1 of a job, and the one through whom rank 0 tells its events."""

    def __init__(
        self,
        job: Job,
        tell: Tell,
        command: Sequence[str] = worker_command(),
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Start them.

        Args:
            job: what all ranks run; its folder holds what they need, and is the supervisor's to remove.
            tell: the supervisor's ear.
            command: how a worker starts.
            leave: ends this process, whatever its main thread is waiting for.
        """
        self._tell, self._leave = tell, leave
        self._folder = Path(tempfile.mkdtemp(prefix="ranks-", dir=Path(job.progress_path).parent))
        self.rendezvous = self._folder / "rendezvous"
        self._others = {other.socket: other for other in (self._start(job, r, command) for r in range(1, job.ranks))}
        self._step: Step | None = None
        self._telling = threading.Lock()
        self._one_failed = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="other-ranks", daemon=True)
        self._watcher.start()

    def tell(self, event: Event) -> None:
        """Rank 0's word, unless another rank failed before: then that is what is told, and the process ends."""
        if isinstance(event, Failed) and self._one_failed.wait(BLAME_S):
            self._watcher.join()
        with self._telling:
            if isinstance(event, Step):
                self._step = event
            elif isinstance(event, Finished):
                self._step = None
            self._tell(event)

    def _start(self, job: Job, rank: int, command: Sequence[str]) -> _Other:
        progress, output = self._folder / f"progress-{rank}", self._folder / f"output-{rank}"
        progress_file.reset(progress)
        mine, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as stdin, output.open("wb") as printed:
            stdin.write(dump_job(replace(job, progress_path=str(progress))))
            stdin.seek(0)
            process = subprocess.Popen(
                [*command, "--events-fd", str(theirs.fileno()), "--rank", str(rank), "--rendezvous", self.rendezvous],
                stdin=stdin,
                stdout=printed,
                stderr=printed,
                pass_fds=(theirs.fileno(),),
            )
        return _Other(rank, process, mine, output)

    def _watch(self) -> None:
        while self._others and not self._one_failed.is_set():
            (ready, *_), _, _ = select.select(list(self._others), [], [])
            self._hear(self._others[ready])

    def _hear(self, other: _Other) -> None:
        chunk = other.socket.recv(1 << 16)
        other.said += chunk
        failure = other.failure()
        if failure is not None:
            self._end(other, f"rank {other.rank}: {failure.reason}", failure)
        elif not chunk:  # it has left
            del self._others[other.socket]
            if code := other.process.wait():
                words = other.last_words()
                how = f"rank {other.rank} {exit_words(code)}"
                self._end(other, f"{how}: {words}" if words else how, None)

    def _end(self, other: _Other, reason: str, failure: Failed | None) -> None:
        """Tell the supervisor where and why, and end this process: its main thread may wait for the rank for ever."""
        self._one_failed.set()
        with self._telling:
            sys.stderr.write(other.output.read_text(errors="replace"))
            if failure is not None:
                self._tell(replace(failure, reason=reason))
            elif self._step is not None:
                self._tell(Failed(self._step.case_id, self._step.phase, self._step.variant_id, "error", reason))
            else:
                sys.stderr.write(f"{reason}\n")
            sys.stderr.flush()
            self._leave(EXIT_AFTER_FAILURE)


def leave_with_rank_0(events_fd: int) -> None:
    """In another rank: end this process when rank 0 has ended, whatever the main thread is waiting for."""

    def wait() -> None:
        with suppress(OSError):
            os.read(events_fd, 1)  # rank 0 says nothing: this returns when it is gone
        os._exit(EXIT_AFTER_FAILURE)

    threading.Thread(target=wait, name="rank-0", daemon=True).start()


def failures_only(events_fd: int) -> Tell:
    """How another rank tells: what it measures reaches rank 0 through the group, the rest is rank 0's to tell."""

    def tell(event: Event) -> None:
        if isinstance(event, Failed):
            os.write(events_fd, dump_event(event))

    return tell
