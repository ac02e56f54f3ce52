"""A kernel of known duration: spins on the GPU's global timer. What a timer is tested against."""

import torch
import triton
from triton.language.extra.cuda import globaltimer


@triton.jit(do_not_specialize=["nanoseconds"])
def spin_kernel(nanoseconds):
    begin = globaltimer()
    while globaltimer() - begin < nanoseconds:
        pass


def spin(seconds: float, device: torch.device) -> None:
    """Keep one CTA on the device's current stream for so long; its launch is not part of the duration."""
    with torch.cuda.device(device):
        spin_kernel[(1,)](round(seconds * 1e9), num_warps=1)
