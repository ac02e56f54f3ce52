"""A whole sweep with the real worker, faults planted in some of its cases; run as a program it is that sweep."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench import cli
from bench.errors import Exit
from bench.results import Measurement, Status
from bench.run_folder import RunFolder
from bench.running import worker_process

TESTS = Path(__file__).parent
SWEEP = """\
# Question: does a fault cost more than its own row?
schema: 1
case:
  model: {{hidden_size: 512, intermediate_size: 512, num_experts: 8, top_k: 2}}
  ep_size: 4
  layers: 1
  tokens: {tokens}
  precision: bf16
  link: local
variants: [{{experts: torch}}]
measure: {{passes: 1, rounds: 1, round_min: 1 ms, case_limit: {limit_s} s}}
"""
STATUS = {
    "out of memory": Status.OOM,
    "illegal access": Status.ERROR,
    "hang": Status.HANG,
    "compile failure": Status.ERROR,
    "killed": Status.ERROR,
    "not finite": Status.INCORRECT,
}


@dataclass(frozen=True)
class Swept:
    """What came of it."""

    code: int
    err: str
    measurements: dict[int, dict[str, Measurement]]
    """By tokens and role."""
    workers: int


def swept(folder: Path, device: Literal["cuda", "cpu"], faults: dict[int, str], limit_s: int) -> Swept:
    """Sweep two whole cases and, between them, one for each fault.

    Args:
        faults: by the tokens of their case, which are multiples of 16.
    """
    (folder / "sweep.yaml").write_text(SWEEP.format(tokens=tokens_of(faults), limit_s=limit_s))
    script, log = folder / "faults.json", folder / "workers"
    script.write_text(json.dumps({"log": str(log), "faults": faults}))
    environment = worker_process.worker_environment()
    environment["PYTHONPATH"] += f"{os.pathsep}{TESTS}"
    done = subprocess.run(
        [sys.executable, __file__, "sweep", "sweep.yaml", "--out", "run", "--device", device],
        cwd=folder,
        env=environment | {"FAULTED_WORKER": str(script)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert done.returncode in (Exit.DONE, Exit.FAILED_CASES), done.stderr
    trials = RunFolder(folder / "run").trials()
    measurements = {trial.workload.tokens: {m.role: m for m in trial.measurements} for trial in trials}
    return Swept(done.returncode, done.stderr, measurements, len(log.read_text().splitlines()))


def tokens_of(faults: dict[int, str]) -> list[int]:
    return [16, *faults, 16 * (len(faults) + 2)]


def each_fault_cost_its_own_row(found: Swept, device: str, faults: dict[int, str], reasons: dict[str, str]) -> None:
    """Every other row is measured; each fault has its status, its reason, a new worker, a command that repeats it."""
    assert found.code == Exit.FAILED_CASES, found.err
    assert list(found.measurements) == tokens_of(faults), found.err
    for tokens, roles in found.measurements.items():
        expected = STATUS[faults[tokens]] if tokens in faults else Status.OK
        outcome = {role: m.status for role, m in roles.items()}
        assert outcome == {"T1": Status.OK, "T2s": Status.OK, "T2o": expected}, (faults.get(tokens), roles)
    for tokens, fault in faults.items():
        reason = found.measurements[tokens]["T2o"].reason or ""
        assert reasons[fault] in reason, (fault, reason)
        again = f"bench sweep sweep.yaml --out run --resume --device {device} --filter tokens={tokens}"
        assert f"failed: tokens={tokens}\n" in found.err
        assert f"repeat with: {again}\n" in found.err
    assert found.err.count("failed: tokens=") == len(faults)
    assert found.workers == 1 + sum(fault != "not finite" for fault in faults.values())


if __name__ == "__main__":
    worker_process.worker_command = lambda *arguments: (  # type: ignore[assignment]
        sys.executable,
        str(TESTS / "faulted_worker.py"),
        *arguments,
    )
    sys.exit(cli.main())
