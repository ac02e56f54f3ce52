"""Stage ``permute``: received rows, one copy per (row, expert) pair, in expert order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import row_block, row_warps, strided_grid
from moe_impl.kernels.move_rows import move_rows
from moe_impl.kernels.pair_places import pair_order, pair_place
from moe_impl.rows import Pairs


@triton.jit
def spread_pairs_kernel(
    received, permuted, ends_L, row_P, width, expert_stride, L: tl.constexpr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr
):
    """Layout ``per_expert``; packed pairs are rows that ``move_rows`` moves."""
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    stride = tl.cast(width, tl.int64)
    num_pairs, counted, shifts = pair_order(ends_L, expert_stride, L, EXPERTS, True)
    for i in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        pair = pair_place(i, counted, shifts, EXPERTS, True)
        values = tl.load(received + tl.load(row_P + pair) * stride + columns, mask=inside)
        tl.store(permuted + pair * stride + columns, values, mask=inside)


def gather_pairs(received_MH: Tensor, pairs: Pairs) -> Tensor:
    """bf16 [M', H] to [P', H]: the GPU twin of ``rows.gather_pairs``; undefined past the experts' ends."""
    if pairs.row_P is None:
        return received_MH
    capacity, width = pairs.row_P.shape[0], received_MH.shape[1]
    permuted_PH = torch.empty(capacity, width, dtype=received_MH.dtype, device=received_MH.device)
    if pairs.expert_stride is None:
        move_rows(received_MH, permuted_PH, pairs.ends_L[-1:], pairs.row_P)
    elif capacity:
        experts = pairs.ends_L.shape[0]
        spread_pairs_kernel[strided_grid(capacity, permuted_PH)](
            received_MH, permuted_PH, pairs.ends_L, pairs.row_P, width, pairs.expert_stride,
            experts, row_block(experts), row_block(width), num_warps=row_warps(width),
        )  # fmt: skip
    return permuted_PH
