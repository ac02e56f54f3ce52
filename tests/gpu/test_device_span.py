"""The timer against CUPTI on a GPU: kernels of known duration on two streams; profilers come and go beside graphs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.gpu


def test_timer_and_profiler_see_the_same_span_over_two_streams() -> None:
    from bench.measure.cuda_timer import CudaEventTimer
    from bench.measure.device_span import device_works
    from bench.measure.spin import spin

    device, side = torch.device("cuda"), torch.cuda.Stream()

    def call() -> None:
        main = torch.cuda.current_stream()
        side.wait_stream(main)
        spin(2e-3, device)
        with torch.cuda.stream(side):
            spin(5e-3, device)
        main.wait_stream(side)

    call()
    work = device_works({"both": call}, CudaEventTimer())["both"]
    assert work.launches == 2
    assert len(work.kernels) == 1
    assert abs(work.span_s / 5e-3 - 1) < 0.02, work
    assert work.disagreement() is None


def test_replays_survive_profilers_that_come_and_go() -> None:
    """In a process of its own: where CUPTI and a graph do not get along, they crash."""
    replays = Path(__file__).with_name("replays_and_profilers.py")
    done = subprocess.run([sys.executable, str(replays)], capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-2000:]}"


def test_ceilings_are_those_of_a_gpu_of_this_decade() -> None:
    from bench.measure.ceilings import ceilings
    from bench.measure.cuda_timer import CudaEventTimer

    found = ceilings(torch.device("cuda"), CudaEventTimer().device_time_s)
    assert 1e11 < found["copy_bytes_per_s"] < 2e13
    assert 1e13 < found["bf16_flops_per_s"] < 1e16
    fp8 = found["fp8_flops_per_s"]
    assert fp8 is None or fp8 > found["bf16_flops_per_s"]
