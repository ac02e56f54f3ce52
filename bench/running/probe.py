"""Asks a short-lived worker what machine this is: the asker stays torch-free."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal

from pydantic import ValidationError

from bench.errors import BenchError, Exit
from bench.running.messages import Ready, load_event
from bench.running.worker_process import exit_words, one_line, worker_command, worker_environment

DeviceChoice = Literal["auto", "cuda", "cpu"]

PROBE_LIMIT_S = 120.0
"""Importing torch from a cold network disk is slow; longer is stuck."""


def probe(device: DeviceChoice, command: Sequence[str] = worker_command()) -> Ready:
    """The machine and environment on which a sweep would run.

    Args:
        device: ``auto`` takes a GPU where there is one.
        command: the worker; ``--probe --device D`` is added.

    Raises:
        BenchError: no torch, one that is too old, or no GPU where one was asked for (exit code 2, the worker's own
            line); a worker that breaks or does not answer (exit code 70).
    """
    try:
        answer = subprocess.run(
            [*command, "--probe", "--device", device],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=worker_environment(),
            timeout=PROBE_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"the worker did not answer within {PROBE_LIMIT_S:.0f} s", code=Exit.INTERNAL) from error
    said = one_line(answer.stderr.decode(errors="replace"))
    if answer.returncode == Exit.BAD_INPUT and said:
        raise BenchError(said)
    if answer.returncode != 0 and find_spec("torch") is None:
        raise BenchError(f"torch is not installed for {sys.executable}: pip install 'moe-tbo-bench[torch]'")
    if answer.returncode != 0:
        raise BenchError(f"the worker could not start: {exit_words(answer.returncode)}: {said}", code=Exit.INTERNAL)
    lines = answer.stdout.splitlines()
    try:
        ready = load_event(lines[-1] if lines else b"")
    except ValidationError as error:
        raise BenchError(f"the worker's answer cannot be read: {lines[-1:]}", code=Exit.INTERNAL) from error
    if not isinstance(ready, Ready):
        raise BenchError(f"the worker answered {ready.kind!r}, expected 'ready'", code=Exit.INTERNAL)
    return ready
