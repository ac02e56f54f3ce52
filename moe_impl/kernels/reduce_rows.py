"""A row's weighted partial sum over its local experts, before combine: the GPU twin of ``rows.reduce_rows``."""

import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps, strided_grid
from moe_impl.rows import Pairs, ReceivedRows


@triton.jit
def reduce_rows_kernel(outputs, pair_MK, weights_MK, partial, count, width, K: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    stride = tl.cast(width, tl.int64)
    num_rows = tl.load(count)
    for row in range(tl.program_id(0), num_rows, tl.num_programs(0)):
        total = tl.zeros([BLOCK], tl.float32)
        for slot in range(K):
            pair = tl.load(pair_MK + row * K + slot)
            if pair >= 0:
                weight = tl.load(weights_MK + row * K + slot)
                values = tl.load(outputs + pair * stride + columns, mask=inside, other=0.0)
                total += weight * values.to(tl.float32)
        tl.store(partial + row * stride + columns, total.to(tl.bfloat16), mask=inside)


def reduce_rows(outputs_PH: Tensor, pairs: Pairs, rows: ReceivedRows, partial_MH: Tensor) -> None:
    """partial[m] = bf16(sum over slots in ascending expert id of weight * outputs[pair]), fp32 inside.

    Args:
        outputs_PH: bf16 [P', H], read below the last pair only.
        partial_MH: bf16 [M', H], written below ``num_rows`` only.
    """
    check(pairs.pair_MK is not None, "pairs that are their rows need no reduction")
    check(outputs_PH.shape[1] == partial_MH.shape[1], "expert outputs and partial sums differ in width")
    capacity, K = pairs.pair_MK.shape
    width = partial_MH.shape[1]
    if capacity == 0:
        return
    reduce_rows_kernel[strided_grid(capacity, partial_MH)](
        outputs_PH, pairs.pair_MK, rows.weights_MK, partial_MH, rows.num_rows, width, K, row_block(width),
        num_warps=row_warps(width), **NO_FMA,
    )  # fmt: skip
