"""Our timer and NVIDIA's cuda-bench on one kernel of over a millisecond."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
import torch

pytestmark = pytest.mark.gpu
SCRIPT = Path(__file__).with_name("copy_by_cuda_bench.py")
MEAN = "nv/cold/time/gpu/mean"


def test_our_timer_and_cuda_bench_agree_on_a_kernel_of_over_a_millisecond(tmp_path: Path) -> None:
    for needed in ("cuda.bindings", "cuda.bench"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: pip install cuda-bench")
    from bench.measure.cuda_timer import CudaEventTimer

    source = torch.ones(2**31, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    timer = CudaEventTimer()

    def ours() -> float:
        return median(timer.device_time_s(lambda: target.copy_(source)) for _ in range(60))

    before = ours()
    result = tmp_path / "nvbench.json"
    done = subprocess.run([sys.executable, SCRIPT, result], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (state,) = json.loads(result.read_text())["benchmarks"][0]["states"]
    (mean,) = [summary for summary in state["summaries"] if summary["tag"] == MEAN]
    theirs = float(mean["data"][0]["value"])
    after = ours()
    assert before > 1e-3
    assert min(abs(one / theirs - 1) for one in (before, after)) < 0.02, (before, theirs, after)
