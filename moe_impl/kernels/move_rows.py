"""Copy rows on the GPU, the count read on the device: what the transports ``local`` and ``paced`` move."""

import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import check, row_block, row_warps, strided_grid


@triton.jit
def copy_rows(source, target, index, num_rows, first, step, width, BLOCK: tl.constexpr, GATHER: tl.constexpr):
    """Rows first, first + step, ... < num_rows: target[row] = source[index[row]] (or source[row])."""
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    stride = tl.cast(width, tl.int64)
    for row in range(first, num_rows, step):
        origin = row
        if GATHER:
            origin = tl.load(index + row)
        values = tl.load(source + origin * stride + columns, mask=inside)
        tl.store(target + row * stride + columns, values, mask=inside)


@triton.jit
def move_rows_kernel(source, target, index, count, width, BLOCK: tl.constexpr, GATHER: tl.constexpr):
    copy_rows(source, target, index, tl.load(count), tl.program_id(0), tl.num_programs(0), width, BLOCK, GATHER)


def move_rows(source: Tensor, target_MH: Tensor, count: Tensor, index_M: Tensor | None = None) -> None:
    """target[i] = source[index[i]] for i < count; without an index, source[i].

    Args:
        source: bf16 [T, H] (with index) or [M', H].
        target_MH: bf16 [M', H], written below ``count`` only.
        count: int32 [1] on the device.
        index_M: int32 [M'] or None.
    """
    check(source.shape[1] == target_MH.shape[1], f"row widths differ: {source.shape[1]} and {target_MH.shape[1]}")
    width = target_MH.shape[1]
    if target_MH.shape[0] == 0:
        return
    move_rows_kernel[strided_grid(target_MH.shape[0], target_MH)](
        source, target_MH, index_M, count, width, row_block(width), index_M is not None, num_warps=row_warps(width)
    )
