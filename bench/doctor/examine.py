"""Asks a process of its own for what needs torch: the asker stays torch-free, and a crash there hides nothing here."""

import json
import subprocess
import sys
from collections.abc import Sequence

from bench.doctor.findings import Finding, State
from bench.errors import BenchError, Exit
from bench.running.probe import DeviceChoice
from bench.running.worker_process import exit_words, one_line, worker_environment

LIMIT_S = 120.0


def command(device: DeviceChoice) -> tuple[str, ...]:
    """How the examination starts. ``-P``: a file of the user's folder must not shadow a module of ours."""
    return (sys.executable, "-P", "-m", "bench.doctor.device", "--device", device)


def on_device(device: DeviceChoice, start: Sequence[str] | None = None) -> list[Finding]:
    """Everything found, and as a last finding why there is no more where the process broke off.

    Raises:
        BenchError: no GPU where one was asked for, or a torch that is too old.
    """
    words = list(start or command(device))
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, env=worker_environment(), timeout=LIMIT_S
        )
        output, errors, ended = done.stdout, done.stderr, exit_words(done.returncode)
        code = done.returncode
    except subprocess.TimeoutExpired as late:
        output, errors, ended, code = late.stdout or b"", late.stderr or b"", f"still busy after {LIMIT_S:.0f} s", 1
    said = one_line(errors.decode(errors="replace"))
    if code == Exit.BAD_INPUT and said:
        raise BenchError(said)
    findings = [_finding(line) for line in output.splitlines() if line.startswith(b"{")]
    if code:
        findings.append(Finding("device", State.MISSING, f"the examination was {ended}{f': {said}' if said else ''}"))
    return findings


def _finding(line: bytes) -> Finding:
    read = json.loads(line)
    return Finding(**{**read, "state": State(read["state"])})
