"""How many SMs the GEMMs leave free: torch's own setting, which its matmuls obey, and our Triton GEMM alike.

torch's grouped matmuls (bf16, fp8) then start one persistent program on each of the remaining SMs, and cuBLASLt is told
their number; :mod:`moe_impl.kernels.free_sms` does it for ours. A kernel asks when it is launched, or captured. The
other compute kernels (quantize, permute, silu_mul, reduce, merge, route) take all SMs: they are short.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def left_free() -> int:
    """SMs that a GEMM launched now leaves free."""
    return torch._C._get_sm_carveout_experimental() or 0


@contextmanager
def leaving_free(sms: int) -> Iterator[None]:
    """GEMMs launched inside, by any thread, leave so many SMs free: 0 is none. The setting before it comes back."""
    before = torch._C._get_sm_carveout_experimental()
    torch._C._set_sm_carveout_experimental(sms or None)  # torch warns of any number
    try:
        yield
    finally:
        torch._C._set_sm_carveout_experimental(before)
