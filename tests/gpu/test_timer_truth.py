"""The timer against kernels of known duration, against Triton's own, and the flush against a read."""

from statistics import median

import pytest
import torch

from bench.doctor import bandwidth, gpu, precision
from bench.doctor.findings import State

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("seconds", [20e-6, 100e-6, 1e-3, 5e-3, 20e-3])
def test_a_spin_of_known_duration_is_timed_within_a_percent_or_five_microseconds(seconds: float) -> None:
    from bench.measure.cuda_timer import CudaEventTimer
    from bench.measure.spin import spin

    device, timer = torch.device("cuda"), CudaEventTimer()
    spin(seconds, device)
    found = median(timer.device_time_s(lambda: spin(seconds, device)) for _ in range(30))
    assert abs(found - seconds) <= max(0.01 * seconds, 5e-6), found


def test_our_timer_and_tritons_agree_on_a_kernel_of_over_a_millisecond() -> None:
    import triton.testing

    from bench.measure.cuda_timer import CudaEventTimer

    source = torch.ones(2**31, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    timer = CudaEventTimer()

    def call() -> torch.Tensor:  # bound by memory: the GPU's clock, which falls under a GEMM's power, hardly matters
        return target.copy_(source)

    for _ in range(50):
        timer.time_s(call)
    ours = median(timer.device_time_s(call) for _ in range(60))
    theirs = triton.testing.do_bench(call, warmup=50, rep=200, return_mode="median") * 1e-3
    again = median(timer.device_time_s(call) for _ in range(60))
    assert ours > 1e-3
    assert min(abs(one / theirs - 1) for one in (ours, again)) < 0.02, (ours, theirs, again)


def test_the_flush_is_proved_and_the_device_is_described() -> None:
    from bench.measure.cuda_timer import CudaEventTimer

    device, timer = torch.device("cuda"), CudaEventTimer()
    cold = precision.cold_cache(device, timer)
    assert cold.state is State.OK, cold
    assert precision.timer_bias(device, timer).state is State.OK
    assert bandwidth.memory(device, timer.device_time_s).data["bytes_per_s"] > 1e12
    rates = bandwidth.pcie(device, timer.device_time_s).data
    assert rates["both_each_way_bytes_per_s"] < 1.05 * min(rates["out_bytes_per_s"], rates["in_bytes_per_s"])
    assert gpu.identity(device).data["sm_count"] > 0
    assert gpu.nccl().state is State.OK
