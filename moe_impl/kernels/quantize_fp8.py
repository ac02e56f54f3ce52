"""Stage ``quantize`` to FP8: bf16 rows to the bytes that travel, each row with its own scale."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.fp8_row import quantize_row
from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps, strided_grid
from moe_impl.payload import FP8_SCALE_BYTES, stored_row_bytes


@triton.jit
def quantize_fp8_kernel(
    rows, payload, scales, count, num_rows, width, row_bytes, BLOCK: tl.constexpr, COUNTED: tl.constexpr
):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    source_stride, stride = tl.cast(width, tl.int64), tl.cast(row_bytes, tl.int64)
    if COUNTED:
        num_rows = tl.load(count)
    for row in range(tl.program_id(0), num_rows, tl.num_programs(0)):
        values = tl.load(rows + row * source_stride + columns, mask=inside, other=0.0).to(tl.float32)
        codes, scale = quantize_row(values)
        tl.store(payload + row * stride + columns, codes, mask=inside)
        tl.store(scales + (row * stride + width) // 4, scale)


def quantize_fp8(rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
    """``fp8.quantize_rows`` of finite rows, laid out to travel: no host wait.

    Args:
        rows_NH: bf16 [N, H], contiguous, H a multiple of 4.
        count: int32 [1] on the device, rows that count; None: all.

    Returns:
        uint8 [N, stored_row_bytes]: a row's H code bytes, then its fp32 scale; what is past these, and rows past the
        count, are undefined.
    """
    rows, width = rows_NH.shape
    check(width % FP8_SCALE_BYTES == 0, f"rows must be a multiple of {FP8_SCALE_BYTES} wide, got {width}")
    stored_bytes = stored_row_bytes("fp8", width)
    payload = torch.empty(rows, stored_bytes, dtype=torch.uint8, device=rows_NH.device)
    if rows == 0:
        return payload
    quantize_fp8_kernel[strided_grid(rows, rows_NH)](
        rows_NH, payload, payload.view(torch.float32), count, rows, width, stored_bytes, row_block(width),
        count is not None, num_warps=row_warps(width), **NO_FMA,
    )  # fmt: skip
    return payload
