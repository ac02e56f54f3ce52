"""Stage ``quantize`` to NVFP4: bf16 rows to the bytes that travel, one tensor scale for all."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps, strided_grid
from moe_impl.kernels.nvfp4_blocks import floats_of, quantize_blocks
from moe_impl.payload import stored_row_bytes
from moe_impl.shapes import NVFP4_BLOCK


@triton.jit
def quantize_rows_kernel(
    rows, payload, tensor_scale, count, num_rows, blocks, row_bytes, BLOCKS: tl.constexpr, COUNTED: tl.constexpr
):
    block = tl.arange(0, BLOCKS)
    inside = block < blocks
    word = block[:, None] * 8 + tl.arange(0, 8)[None, :]
    stride = tl.cast(row_bytes, tl.int64)
    words_a_row = tl.cast(blocks, tl.int64) * 8
    scale = tl.load(tensor_scale)
    if COUNTED:
        num_rows = tl.load(count)
    for row in range(tl.program_id(0), num_rows, tl.num_programs(0)):
        even, odd = floats_of(tl.load(rows + row * words_a_row + word, mask=inside[:, None], other=0))
        codes, scale_bits = quantize_blocks(even, odd, scale)
        target = payload + row * stride
        tl.store(target + word, codes.to(tl.uint8), mask=inside[:, None])
        tl.store(target + words_a_row + block, scale_bits.to(tl.uint8), mask=inside)


def quantize_rows(rows_NH: Tensor, scale: Tensor, count: Tensor | None = None) -> Tensor:
    """``nvfp4.quantize(rows, scale, "kernel")`` of rows without NaN, laid out to travel: no host wait.

    Args:
        rows_NH: bf16 [N, H], contiguous.
        scale: fp32 0-d decode scale, on the device.
        count: int32 [1] on the device, rows that count; None: all.

    Returns:
        uint8 [N, stored_row_bytes]: a row's H/2 code bytes, then its H/16 e4m3 scales; what is past these, and rows
        past the count, are undefined.
    """
    rows, width = rows_NH.shape
    check(width % NVFP4_BLOCK == 0, f"rows must be a multiple of {NVFP4_BLOCK} wide, got {width}")
    check(scale.numel() == 1, f"one scale for all rows, got {tuple(scale.shape)}")
    row_bytes, blocks = stored_row_bytes("nvfp4", width), width // NVFP4_BLOCK
    payload = torch.empty(rows, row_bytes, dtype=torch.uint8, device=rows_NH.device)
    if rows == 0:
        return payload
    quantize_rows_kernel[strided_grid(rows, rows_NH)](
        rows_NH.view(torch.int32), payload, scale, count, rows, blocks, row_bytes, row_block(blocks),
        count is not None, num_warps=row_warps(width), **NO_FMA,
    )  # fmt: skip
    return payload
