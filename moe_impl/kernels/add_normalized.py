"""bf16(x + y / rms(y)): the GPU twin of ``rows.add_normalized``, and the end of ``merge_rows`` alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps


@triton.jit
def add_normalized_kernel(x, y, out, width, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    places = tl.program_id(0).to(tl.int64) * width + columns
    values = tl.load(y + places, mask=inside, other=0.0).to(tl.float32)
    rms = tl.sqrt(tl.sum(values * values) / width)
    step = values / tl.where(rms == 0, 1.0, rms)  # NaN stays NaN
    old = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + places, (old + step).to(tl.bfloat16), mask=inside)


def add_normalized(x_TH: Tensor, y_TH: Tensor) -> Tensor:
    """bf16 [T, H], of bf16 [T, H] each; x where a token's y is all zero."""
    check(x_TH.shape == y_TH.shape, f"x {tuple(x_TH.shape)} and y {tuple(y_TH.shape)} differ in shape")
    tokens, width = x_TH.shape
    out_TH = torch.empty_like(x_TH)
    if tokens == 0:
        return out_TH
    add_normalized_kernel[(tokens,)](x_TH, y_TH, out_TH, width, row_block(width), num_warps=row_warps(width), **NO_FMA)
    return out_TH
