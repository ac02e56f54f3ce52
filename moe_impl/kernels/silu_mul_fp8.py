"""Stage ``silu_mul`` of FP8: h = silu(gate) * up in fp32, quantized with one scale a pair."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.fp8_row import quantize_row
from moe_impl.kernels.launch import NO_FMA, check, row_block, row_warps, strided_grid


@triton.jit
def silu_mul_fp8_kernel(gate_up, codes, scales, count, width, BLOCK: tl.constexpr):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    stride = tl.cast(width, tl.int64)
    num_pairs = tl.load(count)
    for pair in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        base = gate_up + pair * 2 * stride + columns
        gate = tl.load(base, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(base + width, mask=inside, other=0.0).to(tl.float32)
        row_codes, scale = quantize_row(gate / (1.0 + tl.exp(-gate)) * up)
        tl.store(codes + pair * stride + columns, row_codes, mask=inside)
        tl.store(scales + pair, scale)


def silu_mul_fp8(gate_up: Tensor, ends_L: Tensor) -> tuple[Tensor, Tensor]:
    """silu(gate) * up, quantized from fp32 as ``fp8.quantize_rows`` does it: the GPU twin of ``fp8_rows.silu_mul``.

    Args:
        gate_up: bf16 [P', 2I], gate first.
        ends_L: int32 [L], ends of the experts' packed pairs.

    Returns:
        codes float8_e4m3fn [P', I] and scales fp32 [P'], undefined past the last pair.
    """
    check(gate_up.dim() == 2 and gate_up.shape[1] % 2 == 0, f"expected [P', 2I], got {tuple(gate_up.shape)}")
    pairs, width = gate_up.shape[0], gate_up.shape[1] // 2
    codes = torch.empty(pairs, width, dtype=torch.uint8, device=gate_up.device)
    scale_P = torch.empty(pairs, dtype=torch.float32, device=gate_up.device)
    if pairs:
        silu_mul_fp8_kernel[strided_grid(pairs, gate_up)](
            gate_up, codes, scale_P, ends_L[-1:], width, row_block(width), num_warps=row_warps(width), **NO_FMA
        )
    return codes.view(torch.float8_e4m3fn), scale_P
