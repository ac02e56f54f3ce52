"""Total over ranks and the next layer's input: the GPU twin of ``rows.merge_rows``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps
from moe_impl.rows import SentRows


@triton.jit
def merge_rows_kernel(
    x, returned, row_TR, shared, y, next_x, width, R: tl.constexpr, BLOCK: tl.constexpr, SHARED: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    total = tl.zeros([BLOCK], tl.float32)
    for rank in range(R):
        row = tl.load(row_TR + token * R + rank)
        if row >= 0:
            part = tl.load(returned + row.to(tl.int64) * width + columns, mask=inside, other=0.0)
            total += part.to(tl.float32)
    if SHARED:
        total += tl.load(shared + token * width + columns, mask=inside, other=0.0).to(tl.float32)
    rounded = total.to(tl.bfloat16)
    values = rounded.to(tl.float32)
    rms = tl.sqrt(tl.sum(values * values) / width)
    step = values / tl.where(rms > 0, rms, 1.0)
    old = tl.load(x + token * width + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + token * width + columns, rounded, mask=inside)
    tl.store(next_x + token * width + columns, (old + step).to(tl.bfloat16), mask=inside)


def merge_rows(
    x_TH: Tensor, returned_MH: Tensor, rows: SentRows, shared_TH: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """y = bf16(sum over ranks 0..R-1 of returned rows, plus shared) in fp32, and bf16(x + y / rms(y)), both [T, H]."""
    check(x_TH.shape[1] == returned_MH.shape[1], "x and returned rows differ in width")
    tokens, width = x_TH.shape
    y_TH, next_TH = torch.empty_like(x_TH), torch.empty_like(x_TH)
    if tokens == 0:
        return y_TH, next_TH
    merge_rows_kernel[(tokens,)](
        x_TH, returned_MH, rows.row_TR, shared_TH, y_TH, next_TH,
        width, rows.row_TR.shape[1], row_block(width), shared_TH is not None,
        num_warps=row_warps(width), **NO_FMA,
    )  # fmt: skip
    return y_TH, next_TH
