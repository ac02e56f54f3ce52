"""h = silu(gate) * up per (row, expert) pair, optionally with a scale per expert before and after."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps, strided_grid
from moe_impl.kernels.pair_places import pair_order, pair_place


@triton.jit
def silu_mul_kernel(
    gate_up, h, ends_L, in_scale_L, out_scale_L, width, expert_stride,
    L: tl.constexpr, EXPERTS: tl.constexpr, BLOCK: tl.constexpr, SCALED: tl.constexpr, PER_EXPERT: tl.constexpr,
):  # fmt: skip
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    lanes = tl.arange(0, EXPERTS)
    stride = tl.cast(width, tl.int64)
    num_pairs, counted, shifts = pair_order(ends_L, expert_stride, L, EXPERTS, PER_EXPERT)
    ends = tl.load(ends_L + lanes, mask=lanes < L, other=2147483647)
    for i in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        pair = pair_place(i, counted, shifts, EXPERTS, PER_EXPERT)
        base = gate_up + pair * 2 * stride + columns
        gate = tl.load(base, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(base + width, mask=inside, other=0.0).to(tl.float32)
        if SCALED:
            expert = tl.sum((ends <= pair).to(tl.int32))
            in_scale = tl.load(in_scale_L + expert)
            gate *= in_scale
            up *= in_scale * tl.load(out_scale_L + expert)
        value = gate / (1.0 + tl.exp(-gate)) * up
        tl.store(h + pair * stride + columns, value.to(tl.bfloat16), mask=inside)


def silu_mul(
    gate_up: Tensor, ends_L: Tensor, scales: tuple[Tensor, Tensor] | None = None, expert_stride: int | None = None
) -> Tensor:
    """silu(s * gate) * (s * up) * o, computed in fp32 and rounded once to bf16.

    Args:
        gate_up: bf16 [P', 2I], gate first.
        ends_L: int32 [L], ends of the experts' pairs.
        scales: float32 [L] each: s (gemm1's weight scale) and o (gemm2's, applied before it), or None for 1 and 1.
        expert_stride: where expert e's pairs begin, times e; None: they are packed.

    Returns:
        bf16 [P', I], undefined past the ends.
    """
    check(gate_up.dim() == 2 and gate_up.shape[1] % 2 == 0, f"expected [P', 2I], got {tuple(gate_up.shape)}")
    pairs, width = gate_up.shape[0], gate_up.shape[1] // 2
    h = torch.empty(pairs, width, dtype=torch.bfloat16, device=gate_up.device)
    in_scale, out_scale = scales or (None, None)
    experts = ends_L.shape[0]
    if pairs == 0:
        return h
    silu_mul_kernel[strided_grid(pairs, gate_up)](
        gate_up, h, ends_L, in_scale, out_scale, width, expert_stride or 0,
        experts, row_block(experts), row_block(width), scales is not None, expert_stride is not None,
        num_warps=row_warps(width), **NO_FMA,
    )  # fmt: skip
    return h
