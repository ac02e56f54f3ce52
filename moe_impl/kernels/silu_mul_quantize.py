"""Stage ``silu_mul`` of W4A4: h = silu(gate) * up in fp32, quantized to NVFP4, and expanded where a GEMM reads bf16."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps, strided_grid
from moe_impl.kernels.nvfp4_blocks import expand_blocks, floats_of, quantize_blocks
from moe_impl.kernels.pair_places import pair_order, pair_place
from moe_impl.payload import stored_row_bytes
from moe_impl.shapes import NVFP4_BLOCK


@triton.jit
def silu_mul_quantize_kernel(
    gate_up, h, ends_L, in_scale_L, tensor_scale, blocks, row_bytes, expert_stride,
    L: tl.constexpr, EXPERTS: tl.constexpr, BLOCKS: tl.constexpr, SCALED: tl.constexpr, PER_EXPERT: tl.constexpr,
    EXPANDED: tl.constexpr,
):  # fmt: skip
    block = tl.arange(0, BLOCKS)
    is_block = block < blocks
    inside = is_block[:, None]
    stride = tl.cast(row_bytes, tl.int64)
    word = block[:, None] * 8 + tl.arange(0, 8)[None, :]
    lanes = tl.arange(0, EXPERTS)
    words_a_row = tl.cast(blocks, tl.int64) * 8
    scale = tl.load(tensor_scale)
    num_pairs, counted, shifts = pair_order(ends_L, expert_stride, L, EXPERTS, PER_EXPERT)
    ends = tl.load(ends_L + lanes, mask=lanes < L, other=2147483647)
    for i in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        pair = pair_place(i, counted, shifts, EXPERTS, PER_EXPERT)
        base = gate_up + pair * 2 * words_a_row + word
        gate_even, gate_odd = floats_of(tl.load(base, mask=inside, other=0))
        up_even, up_odd = floats_of(tl.load(base + words_a_row, mask=inside, other=0))
        if SCALED:
            in_scale = tl.load(in_scale_L + tl.sum((ends <= pair).to(tl.int32)))
            gate_even *= in_scale
            gate_odd *= in_scale
            up_even *= in_scale
            up_odd *= in_scale
        even = gate_even / (1.0 + tl.exp(-gate_even)) * up_even
        odd = gate_odd / (1.0 + tl.exp(-gate_odd)) * up_odd
        codes, scale_bits = quantize_blocks(even, odd, scale)
        if EXPANDED:
            tl.store(h + pair * words_a_row + word, expand_blocks(codes, scale_bits), mask=inside)
        else:
            tl.store(h + pair * stride + word, codes.to(tl.uint8), mask=inside)
            tl.store(h + pair * stride + words_a_row + block, scale_bits.to(tl.uint8), mask=is_block)


def silu_mul_quantize(
    gate_up: Tensor,
    ends_L: Tensor,
    scale: Tensor,
    in_scale_L: Tensor | None = None,
    expert_stride: int | None = None,
    expanded: bool = True,
) -> Tensor:
    """silu(s * gate) * (s * up), quantized from fp32 by rule ``kernel``: as e2m1 * e4m3, exact in bf16, or as rows of
    codes and scales for FP4 tensor cores. The tensor scale is left to gemm2's epilogue.

    Args:
        gate_up: bf16 [P', 2I], gate first, contiguous.
        ends_L: int32 [L], ends of the experts' pairs.
        scale: fp32 0-d decode scale of h, on the device.
        in_scale_L: float32 [L]: s, by expert; None for 1.
        expert_stride: where expert e's pairs begin, times e; None: they are packed.
        expanded: whether a GEMM reads bf16.

    Returns:
        bf16 [P', I], undefined past the ends; not expanded, uint8 [P', stored_row_bytes] as
        :func:`moe_impl.kernels.quantize_rows.quantize_rows` lays rows out.
    """
    width, odd = divmod(gate_up.shape[1], 2)
    check(not odd and width % NVFP4_BLOCK == 0, f"expected [P', 2I], I a multiple of 16, got {tuple(gate_up.shape)}")
    check(scale.numel() == 1, f"one scale for all rows, got {tuple(scale.shape)}")
    pairs, blocks, experts = gate_up.shape[0], width // NVFP4_BLOCK, ends_L.shape[0]
    row_bytes = stored_row_bytes("nvfp4", width)
    if expanded:
        h = torch.empty(pairs, width // 2, dtype=torch.int32, device=gate_up.device)
    else:
        h = torch.empty(pairs, row_bytes, dtype=torch.uint8, device=gate_up.device)
    if pairs:
        silu_mul_quantize_kernel[strided_grid(pairs, gate_up)](
            gate_up.view(torch.int32), h, ends_L, in_scale_L, scale, blocks, row_bytes, expert_stride or 0,
            experts, row_block(experts), row_block(blocks), in_scale_L is not None, expert_stride is not None, expanded,
            num_warps=row_warps(width), **NO_FMA,
        )  # fmt: skip
    return h.view(torch.bfloat16) if expanded else h
