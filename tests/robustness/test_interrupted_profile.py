"""A profile that is interrupted leaves in order, and nothing of what it started runs on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import wait_for

CONFIG = """\
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 1, tokens: 64, precision: bf16, link: local}
variants: [{engine: streams, split_factor: 2}]
"""
DRIVER = """\
import sys
from types import SimpleNamespace

import synthetic

from bench import cli
from bench.profiling import drive
from bench.running import probe

probe.probe = lambda device: SimpleNamespace(machine=synthetic.H100)
drive.target_command = lambda: (sys.executable, "-c", PROFILED)
sys.exit(cli.main(sys.argv[1:]))
"""
PROFILED = """\
import subprocess
import sys
import time

alive = open("alive", "wb")
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[alive.fileno()])
alive.write(b"began")
alive.flush()
sys.stdin.read()
time.sleep(60)
"""
"""As a tool does, it starts another process; both hold the pipe ``alive`` open as long as they run."""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_profile_and_all_that_it_started(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "sweep.yaml").write_text(CONFIG)
    os.mkfifo(tmp_path / "alive")
    tests = Path(__file__).parents[1]
    profiling = subprocess.Popen(
        [sys.executable, "-c", DRIVER.replace("PROFILED", repr(PROFILED)), "profile", "sweep.yaml"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(tests.parent), str(tests)))},
        stderr=subprocess.PIPE,
        text=True,
    )
    with open(os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as alive:
        wait_for(lambda: profiling.poll() is not None or alive.read(5) == b"began")
        profiling.send_signal(number)
        _, err = profiling.communicate(timeout=20)
        assert (profiling.returncode, err) == (130, f"error: interrupted by {number.name}\n")
        wait_for(lambda: alive.read(1) == b"")  # the end: nobody holds it any more
