"""What this GPU reaches at best: copying in its memory, and multiplying large matrices. Less than a second in all."""

from collections.abc import Callable

import torch

from bench.doctor.bandwidth import TimeS, memory

GEMM_SIZE = 8192
REPEATS = 10


def ceilings(device: torch.device, time_s: TimeS) -> dict[str, float | None]:
    """Bytes (read and written) and FLOPs a second, of the best of a few calls; None for what torch cannot run here.

    FP8: a row-wise scaled product, as the experts' (``torch._scaled_mm``), on GPUs from sm_89 on.
    """
    found: dict[str, float | None] = {"copy_bytes_per_s": memory(device, time_s).data["bytes_per_s"]}
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


def _flops_per_s(call: Callable[[], object], time_s: TimeS) -> float:
    return 2 * GEMM_SIZE**3 / min(time_s(call) for _ in range(REPEATS))
