"""A tensor scale per expert on a grouped GEMM's output: the epilogue of a GEMM that takes none of ours."""

import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import row_block, row_warps, strided_grid


@triton.jit
def scale_pairs_kernel(outputs, ends_L, scale_L, width, L: tl.constexpr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    lanes = tl.arange(0, EXPERTS)
    stride = tl.cast(width, tl.int64)
    num_pairs = tl.load(ends_L + L - 1)
    ends = tl.load(ends_L + lanes, mask=lanes < L, other=2147483647)
    for pair in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        at = outputs + pair * stride + columns
        scale = tl.load(scale_L + tl.sum((ends <= pair).to(tl.int32)))
        values = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        tl.store(at, (values * scale).to(tl.bfloat16), mask=inside)


def scale_pairs(outputs_PN: Tensor, ends_L: Tensor, scale_L: Tensor) -> None:
    """outputs[p] = bf16(scale[e] * outputs[p]) for the pairs p of each expert e, in place; others stay.

    Args:
        outputs_PN: bf16 [P', N].
        ends_L: int32 [L], ends of the experts' pairs.
        scale_L: float32 [L].
    """
    pairs, width = outputs_PN.shape
    experts = ends_L.shape[0]
    if pairs == 0:
        return
    scale_pairs_kernel[strided_grid(pairs, outputs_PN)](
        outputs_PN, ends_L, scale_L, width, experts, row_block(experts), row_block(width), num_warps=row_warps(width)
    )
