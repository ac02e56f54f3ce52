"""Stage ``permute`` of NVFP4 rows: one copy per (row, expert) pair, in expert order, expanded to bf16."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import check, row_block, row_warps, strided_grid
from moe_impl.kernels.nvfp4_blocks import expand_blocks
from moe_impl.kernels.pair_places import pair_order, pair_place
from moe_impl.payload import stored_row_bytes
from moe_impl.rows import Pairs
from moe_impl.shapes import NVFP4_BLOCK


@triton.jit
def expand_pairs_kernel(
    payload, row_P, ends_L, permuted, blocks, row_bytes, expert_stride,
    L: tl.constexpr, EXPERTS: tl.constexpr, BLOCKS: tl.constexpr, GATHER: tl.constexpr, PER_EXPERT: tl.constexpr,
):  # fmt: skip
    block = tl.arange(0, BLOCKS)
    inside = block < blocks
    word = block[:, None] * 8 + tl.arange(0, 8)[None, :]
    stride = tl.cast(row_bytes, tl.int64)
    words_a_row = tl.cast(blocks, tl.int64) * 8
    num_pairs, counted, shifts = pair_order(ends_L, expert_stride, L, EXPERTS, PER_EXPERT)
    for i in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        pair = pair_place(i, counted, shifts, EXPERTS, PER_EXPERT)
        row = pair
        if GATHER:
            row = tl.load(row_P + pair)
        source = payload + row * stride
        codes = tl.load(source + word, mask=inside[:, None], other=0)
        scale_bits = tl.load(source + words_a_row + block, mask=inside, other=0)
        tl.store(permuted + pair * words_a_row + word, expand_blocks(codes, scale_bits), mask=inside[:, None])


def expand_pairs(payload_MB: Tensor, pairs: Pairs, width: int) -> Tensor:
    """e2m1 * e4m3 of each pair's row, exact in bf16; the tensor scale is left to gemm1's epilogue.

    Args:
        payload_MB: uint8 [M', stored_row_bytes], as :func:`moe_impl.kernels.quantize_rows.quantize_rows` lays it out.
        pairs: without ``row_P``, pair p is row p.
        width: H.

    Returns:
        bf16 [P', H], undefined past the experts' ends.
    """
    row_bytes, blocks = payload_MB.shape[1], width // NVFP4_BLOCK
    wanted = stored_row_bytes("nvfp4", width)
    check(row_bytes == wanted, f"rows of {width} values take {wanted} bytes, got {row_bytes}")
    experts = pairs.ends_L.shape[0]
    capacity = payload_MB.shape[0] if pairs.row_P is None else pairs.row_P.shape[0]
    permuted = torch.empty(capacity, width // 2, dtype=torch.int32, device=payload_MB.device)
    if capacity:
        expand_pairs_kernel[strided_grid(capacity, payload_MB)](
            payload_MB, pairs.row_P, pairs.ends_L, permuted, blocks, row_bytes, pairs.expert_stride or 0,
            experts, row_block(experts), row_block(blocks), pairs.row_P is not None, pairs.expert_stride is not None,
            num_warps=row_warps(width),
        )  # fmt: skip
    return permuted.view(torch.bfloat16)
