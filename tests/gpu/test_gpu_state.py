"""What NVML says of the GPU that torch uses, at rest and right after work."""

import pytest
import torch

from bench.environment import gpu_state, uuid_of
from bench.telemetry import Gpu

pytestmark = pytest.mark.gpu


def test_the_state_is_that_of_a_gpu_at_work() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    device = torch.device("cuda")
    gpu = Gpu(uuid_of(device))
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(200):
        matrix @ matrix
    busy = gpu.now()
    torch.cuda.synchronize()
    most_hz = gpu.sm_clock_max_hz()
    assert most_hz is not None
    assert busy.sm_clock_hz is not None
    assert 0.1 * most_hz < busy.sm_clock_hz <= most_hz
    assert busy.power_w is not None
    assert 20 < busy.power_w < 2000
    assert busy.temperature_c is not None
    assert 10 < busy.temperature_c < 120
    assert busy.throttled_by is not None
    assert gpu_state(uuid_of(device))["sm_clock_max_mhz"] == pytest.approx(most_hz / 1e6)
