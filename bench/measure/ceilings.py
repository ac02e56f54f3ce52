"""What this GPU reaches at best: copying in its memory, and multiplying large matrices. Less than a second in all."""

from collections.abc import Callable

import torch

COPY_BYTES = 2**30
COPY_REPEATS = 5
GEMM_SIZE = 8192
GEMM_REPEATS = 10

TimeS = Callable[[Callable[[], object]], float]
"""Seconds of a call's device work (bench.measure.timer.Timer.device_time_s)."""


def ceilings(device: torch.device, time_s: TimeS) -> dict[str, float | None]:
    """Bytes (read and written) and FLOPs a second, of the best of a few calls; None for what torch cannot run here.

    FP8: a row-wise scaled product, as the experts' (``torch._scaled_mm``), on GPUs from sm_89 on.
    """
    found: dict[str, float | None] = {"copy_bytes_per_s": copy_bytes_per_s(device, time_s)}
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device, dtype=torch.bfloat16) for _ in range(2))
    found["bf16_flops_per_s"] = _flops_per_s(lambda: a @ b, time_s)
    found["fp8_flops_per_s"] = None
    if torch.cuda.get_device_capability(device) >= (8, 9):
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
        ones = torch.ones(GEMM_SIZE, 1, device=device)

        def scaled() -> torch.Tensor:
            return torch._scaled_mm(a8, b8.t(), scale_a=ones, scale_b=ones.t(), out_dtype=torch.bfloat16)

        try:
            found["fp8_flops_per_s"] = _flops_per_s(scaled, time_s)
        except RuntimeError:  # this torch has no such kernel for this GPU
            torch.cuda.synchronize(device)
    return found


def copy_bytes_per_s(device: torch.device, time_s: TimeS) -> float:
    """Copy within HBM, bytes read and written both counted."""
    source = torch.ones(COPY_BYTES, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / min(time_s(lambda: target.copy_(source)) for _ in range(COPY_REPEATS))


def _flops_per_s(call: Callable[[], object], time_s: TimeS) -> float:
    return 2 * GEMM_SIZE**3 / min(time_s(call) for _ in range(GEMM_REPEATS))
