"""The other ranks of a worker: how they start, whose failure is told, and that no one outlives the other."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_sweep import small_case

from bench.running import progress_file, ranks
from bench.running.messages import (
    EXIT_AFTER_FAILURE,
    Event,
    Failed,
    Finished,
    Job,
    JobCase,
    Step,
    dump_event,
    load_job,
)
from bench.running.ranks import OtherRanks, failures_only
from bench.running.worker_process import worker_environment
from bench.settings import MeasureSettings

FAKE_RANK = """
import os, sys, time
from pathlib import Path

did = sys.argv[1]
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
job = sys.stdin.buffer.readline()
folder = Path(options["--rendezvous"]).parent
(folder / ("seen-" + options["--rank"])).write_bytes(job)
while not (folder / "go").exists():
    time.sleep(0.01)
print("a line", file=sys.stderr)
print("last words of rank " + options["--rank"], file=sys.stderr, flush=True)
if did == "leave" or did.endswith("!") and options["--rank"] != did[-2]:
    os.read(int(options["--events-fd"]), 1)  # until rank 0 is gone
elif did.startswith("exit"):
    sys.exit(3)
elif did.startswith("die"):
    os.kill(os.getpid(), 9)
elif did.startswith("say"):
    os.write(int(options["--events-fd"]), Path(os.environ["SAID"]).read_bytes())
    os.read(int(options["--events-fd"]), 1)
"""
WAIT_S = 20.0


class Rank0:
    """What rank 0 told, and with which code it would have left."""

    def __init__(self, folder: Path, num_ranks: int, did: str) -> None:
        self.told: list[Event] = []
        self.left = threading.Event()
        self.code: int | None = None
        progress_file.reset(folder / "progress")
        self.job = Job(
            2, (JobCase(small_case()),), MeasureSettings(rounds=1), "cpu", str(folder / "progress"), num_ranks
        )
        command = (sys.executable, "-c", FAKE_RANK, did)
        self.others = OtherRanks(self.job, self.told.append, command, self._leave)
        self.processes = [other.process for other in self.others._others.values()]

    def go(self) -> None:
        """Let the ranks do what they are made to do."""
        (self.others.rendezvous.parent / "go").touch()

    def _leave(self, code: int) -> None:
        self.code = code
        self.left.set()


Begin = Callable[[int, str], Rank0]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    made: list[Rank0] = []

    def start(num_ranks: int, did: str) -> Rank0:
        made.append(Rank0(tmp_path, num_ranks, did))
        return made[-1]

    yield start
    for one in made:
        for process in one.processes:
            process.kill()
            process.wait()


STEP = Step("case", "measure", "some variant", "round 1 of 1")


def test_every_other_rank_gets_the_job_and_a_progress_file_of_its_own(begin: Begin, tmp_path: Path) -> None:
    one = begin(3, "nothing")
    one.go()
    assert [process.wait(WAIT_S) for process in one.processes] == [0, 0]
    seen = [load_job((one.others.rendezvous.parent / f"seen-{rank}").read_bytes()) for rank in (1, 2)]
    for job in seen:
        assert (job.cases, job.ranks, job.pass_index) == (one.job.cases, 3, 2)
    paths = {job.progress_path for job in (one.job, *seen)}
    assert len(paths) == 3, "the supervisor reads rank 0's alone"
    assert [progress_file.read(Path(path)) for path in paths] == [progress_file.NOWHERE] * 3
    assert one.others.rendezvous.is_relative_to(tmp_path)
    assert not one.left.is_set(), "ranks that are done are no failure"


@pytest.mark.parametrize(("did", "how"), [("exit 2!", "exited with code 3"), ("die 2!", "killed by SIGKILL")])
def test_a_rank_that_dies_is_named_where_rank_0_is(
    begin: Begin, did: str, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    one = begin(4, did)
    one.others.tell(STEP)
    one.go()
    assert one.left.wait(WAIT_S)
    reason = f"rank 2 {how}: a line | last words of rank 2"
    assert one.told[-1] == Failed("case", "measure", "some variant", "error", reason)
    assert one.code == EXIT_AFTER_FAILURE
    assert "a line\nlast words of rank 2\n" in capfd.readouterr().err, "the log keeps what it printed"


def test_a_rank_that_raises_tells_its_own_place_and_status(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said"
    said.write_bytes(dump_event(Failed("next case", "build", None, "oom", "OutOfMemoryError: made up")))
    monkeypatch.setenv("SAID", str(said))
    one = begin(2, "say")
    one.others.tell(STEP)
    one.go()
    assert one.left.wait(WAIT_S)
    assert one.told[-1] == Failed("next case", "build", None, "oom", "rank 1: OutOfMemoryError: made up")


def test_a_rank_that_dies_between_cases_ends_the_worker_with_its_words(
    begin: Begin, capfd: pytest.CaptureFixture[str]
) -> None:
    one = begin(2, "exit")
    one.go()
    assert one.left.wait(WAIT_S)
    assert (one.told, one.code) == ([], EXIT_AFTER_FAILURE)
    assert capfd.readouterr().err.endswith("rank 1 exited with code 3: a line | last words of rank 1\n")


def test_a_failure_of_rank_0_that_follows_from_another_ranks_is_not_told(begin: Begin) -> None:
    """Its collective failed because the other is gone. Whichever is noticed first, the cause is told first."""
    one = begin(2, "exit")
    one.others.tell(STEP)
    one.go()
    one.others.tell(Failed("case", "measure", "some variant", "error", "RuntimeError: Connection closed by peer"))
    first = next(event for event in one.told if isinstance(event, Failed))
    assert first.reason.startswith("rank 1 exited with code 3")


def test_a_failure_of_rank_0_alone_is_told_soon(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "BLAME_S", 0.05)
    one = begin(2, "leave")
    one.go()
    failure = Failed("case", "measure", None, "error", "ValueError: made up")
    one.others.tell(failure)
    assert one.told == [failure]
    assert not one.left.is_set()


CHILD = """
import sys, time
from bench.running.ranks import leave_with_rank_0
leave_with_rank_0(int(sys.argv[1]))
print("up", flush=True)
time.sleep(60)  # in a collective
"""


def test_a_rank_leaves_when_rank_0_is_gone() -> None:
    mine, theirs = socket.socketpair()
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, str(theirs.fileno())],
            env=worker_environment(),
            pass_fds=(theirs.fileno(),),
            stdout=subprocess.PIPE,
        )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"up\n"
        began = time.monotonic()
        mine.close()
        assert child.wait(WAIT_S) == EXIT_AFTER_FAILURE
    assert time.monotonic() - began < 10


def test_another_rank_tells_nothing_but_its_failure() -> None:
    receive, send = os.pipe()
    tell = failures_only(send)
    failure = Failed("case", "check", "variant", "error", "made up")
    for event in (STEP, Finished({}), failure):
        tell(event)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        assert json.loads(pipe.read())["reason"] == "made up"
