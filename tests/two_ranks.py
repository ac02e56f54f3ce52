"""A real sweep of two ranks, in a folder of its own: what it runs, its Trials, and how to find its other rank."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.results import Trial
from bench.run_folder import open_run
from bench.running import progress_file
from bench.running.worker_process import worker_environment

FOUND_S = 60.0


ALONE = ("-m", "bench.cli", "sweep", "two.yaml", "--nproc", "2")
BY_TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "bench.cli",
    "sweep",
    "two.yaml",
)


def start(
    folder: Path, device: str, case: str, variant: str, round_min: str = "1 ms", words: Sequence[str] = ALONE
) -> subprocess.Popen[str]:
    """Begin it.

    Args:
        folder: for its run and its temporary files.
        device: cpu or cuda.
        case: the sweep file's ``case`` without its ep_size, layers and link, as a YAML mapping's inside.
        variant: one entry of ``variants``, likewise.
        round_min: of ``measure``; a long one gives the time to interfere.
        words: how Python is to start it.
    """
    (folder / "two.yaml").write_text(
        "# Question: do two processes agree?\n"
        "schema: 1\n"
        f"case: {{ep_size: 2, layers: 2, link: collective, {case}}}\n"
        f"variants: [{{{variant}}}]\n"
        f"measure: {{passes: 1, rounds: 2, round_min: {round_min}, warm_up: 1 ms, case_limit: 60 s}}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-P", *words, "--device", device, "--out", "run"],
        cwd=folder,
        env=worker_environment() | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trials(folder: Path) -> list[Trial]:
    """What it has stored."""
    return open_run(folder / "run").trials()


def other_rank_at_work(sweep: subprocess.Popen[str], folder: Path) -> int:
    """Pid of rank 1, once it has issued an op. Needs /proc."""
    until = time.monotonic() + FOUND_S
    while time.monotonic() < until and sweep.poll() is None:
        for progress in folder.glob("bench-*/ranks-*/progress-1"):
            at_work = progress.stat().st_size and progress_file.read(progress) != progress_file.NOWHERE
            if at_work and (pid := _process_with(str(progress.with_name("rendezvous")))) is not None:
                return pid
        time.sleep(0.005)
    raise AssertionError("rank 1 was not seen at work")


def _process_with(word: str) -> int | None:
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().split(b"\0")
        except OSError:  # it has left meanwhile
            continue
        if word.encode() in words:
            return int(line.parent.name)
    return None
