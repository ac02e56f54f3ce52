"""Grouped GEMM that reads NVFP4 weights and expands them to bf16 in registers.

e2m1 x e4m3 products have at most 6 significant bits, so the expansion is exact in bf16 and the tensor core computes, in
fp32, the very products an FP4 tensor core would: results are "emulated (exact products)". The per-tensor scale stays
out of the 16-bit operand and multiplies the accumulator. Weights are the A operand (wgmma reads A from registers), so
the tile is computed transposed.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.carve_out import left_free
from moe_impl.kernels.free_sms import computes_here, new_sms, next_tile, programs
from moe_impl.kernels.launch import check, row_block, sm_count
from moe_impl.kernels.pair_places import pair_spans
from moe_impl.nvfp4 import NvFp4Tensor

TILES_PER_SM = 64
"""Programs a multiprocessor gets at most: short ones let a waiting communication kernel in; a worst-case grid of one
program a tile would start tens of thousands that find no rows."""


SCALE_SHIFT = 16
"""Expanded weights are 2^-16 times too small, which the epilogue undoes: with the factor 2^126 that e2m1 bits need in
the exponent of a bf16, a large e4m3 scale would overflow."""


@dataclass(frozen=True)
class RepackedWeights:
    """NVFP4 weights of one projection, laid out for this kernel by :func:`repack`. B = K / block_k."""

    codes: Tensor
    """uint8 [L, B, N, block_k / 2]: byte j of a block holds code j (low nibble) and code j + block_k / 2."""
    scales: Tensor
    """int16 [L, B, N, block_k / 32]: e4m3 bits of a group in the first half (low byte) and in the second. Together,
    because a tile of less than 4 bytes a thread is not copied ahead, and every step would wait for it."""
    global_scale: Tensor
    """float32 [L]."""

    @property
    def block_k(self) -> int:
        return 2 * self.codes.shape[-1]


def repack(weights: NvFp4Tensor) -> RepackedWeights:
    """Make every tile contiguous, and pair the codes of a block's two halves: a byte's nibbles then feed two dots.

    Raises:
        ValueError: K is no multiple of 64.
    """
    experts, rows, half = weights.packed.shape
    width = 2 * half
    block_k = 128 if width % 128 == 0 else 64
    check(width % block_k == 0, f"K must be a multiple of 64, got {width}")
    blocks = width // block_k
    codes = weights.packed.new_empty(experts, blocks, rows, block_k // 2)
    for expert in range(experts):  # one at a time: the unpacked codes take twice the room
        packed = weights.packed[expert]
        halves = torch.stack((packed & 0xF, packed >> 4), -1).view(rows, blocks, 2, block_k // 2)
        codes[expert] = (halves[:, :, 0] | (halves[:, :, 1] << 4)).transpose(0, 1)
    scales = weights.scales.view(torch.uint8).view(experts, rows, blocks, 2, block_k // 32).permute(0, 2, 1, 4, 3)
    return RepackedWeights(codes, scales.contiguous().view(torch.int16).squeeze(-1), weights.global_scale)


@triton.jit
def e2m1_bits_to_float(bits, shift: tl.constexpr, ARITHMETIC: tl.constexpr):
    """Four bits at ``shift`` of a byte: sign, then e2m1 in the low exponent bits of a float: the value times 2^-126.

    Code 1 becomes a subnormal, as it is one in e2m1. bf16 on a GPU, fp32 in the interpreter, which flushes bf16 ones.
    """
    if tl.bfloat16 == ARITHMETIC:
        wide = bits.to(tl.uint16)
        return (((wide << (6 - shift)) & 0x1C0) | ((wide << (12 - shift)) & 0x8000)).to(tl.bfloat16, bitcast=True)
    else:
        wide = bits.to(tl.uint32)
        return (((wide << (22 - shift)) & 0x1C00000) | ((wide << (28 - shift)) & 0x80000000)).to(
            tl.float32, bitcast=True
        )


@triton.jit
def e4m3_bits_to_float(bits, ARITHMETIC: tl.constexpr):
    """Non-negative finite e4m3 bits, likewise: the value times 2^110, so that a product is 2^-16 times too small."""
    if tl.bfloat16 == ARITHMETIC:
        small = (bits.to(tl.uint16) << 4).to(tl.bfloat16, bitcast=True)
    else:
        small = (bits.to(tl.uint32) << 20).to(tl.float32, bitcast=True)
    # 2^-120 of the value by place; 2^230 is no float, hence two exact steps.
    return (small.to(tl.float32) * 1.329227995784916e36 * 1.298074214633707e33).to(ARITHMETIC)


@triton.jit
def expand(bits, scales, shift: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, ARITHMETIC: tl.constexpr):
    """e2m1 codes at ``shift`` of bytes [ROWS, WIDTH] times e4m3 scales [ROWS, WIDTH / 16], times 2^-16, exactly."""
    values = e2m1_bits_to_float(bits, shift, ARITHMETIC).reshape(ROWS, WIDTH // 16, 16)
    return (values * e4m3_bits_to_float(scales, ARITHMETIC)[:, :, None]).reshape(ROWS, WIDTH)


@triton.jit
def multiply_tile(
    tile, m_tiles, n_tiles, starts, ends, tile_ends, x, codes, scales, global_scale, out, N, K,
    EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, ARITHMETIC: tl.constexpr, UNSHIFT: tl.constexpr,
):  # fmt: skip
    HALF: tl.constexpr = BLOCK_K // 2
    GROUPS: tl.constexpr = HALF // 16
    lanes = tl.arange(0, EXPERTS)
    # GROUP row tiles share a sweep over the columns: their rows and the weights of a few columns stay in L2.
    group = tile // (GROUP * n_tiles)
    in_group = tl.minimum(m_tiles - group * GROUP, GROUP)
    rest = tile % (GROUP * n_tiles)
    m_tile = group * GROUP + rest % in_group
    n_tile = rest // in_group
    expert = tl.sum((tile_ends <= m_tile).to(tl.int32))
    chosen = lanes == expert
    row_end = tl.sum(tl.where(chosen, ends, 0))
    row_start = tl.sum(tl.where(chosen, starts, 0))
    first_tile = tl.sum(tl.where(lanes == expert - 1, tile_ends, 0))
    rows_m = row_start + (m_tile - first_tile) * BLOCK_M + tl.arange(0, BLOCK_M)
    rows_n = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = rows_m < row_end, rows_n < N
    columns = tl.arange(0, HALF)
    code_at = codes + expert.to(tl.int64) * N * (K // 2) + rows_n[:, None] * HALF + columns[None, :]
    scale_at = scales + expert.to(tl.int64) * N * (K // 32) + rows_n[:, None] * GROUPS + tl.arange(0, GROUPS)[None, :]
    x_at = x + rows_m.to(tl.int64)[None, :] * K + columns[:, None]
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for _ in range(K // BLOCK_K):
        both = tl.load(code_at, mask=in_n[:, None], other=0)
        both_scales = tl.load(scale_at, mask=in_n[:, None], other=0)
        x_low = tl.load(x_at, mask=in_m[None, :], other=0.0).to(ARITHMETIC)
        x_high = tl.load(x_at + HALF, mask=in_m[None, :], other=0.0).to(ARITHMETIC)
        total = tl.dot(expand(both, both_scales & 0x7F, 0, BLOCK_N, HALF, ARITHMETIC), x_low, total)
        total = tl.dot(expand(both, both_scales >> 8, 4, BLOCK_N, HALF, ARITHMETIC), x_high, total)
        code_at += N * HALF
        scale_at += N * GROUPS
        x_at += BLOCK_K
    result = (total * (tl.load(global_scale + expert) * UNSHIFT)).to(tl.bfloat16)
    out_at = out + rows_m.to(tl.int64)[:, None] * N + rows_n[None, :]
    tl.store(out_at, tl.trans(result), mask=in_m[:, None] & in_n[None, :])


@triton.jit
def nvfp4_grouped_gemm_kernel(
    x, codes, scales, global_scale, ends_L, out, sms, N, K, expert_stride, allowed_sms,
    L: tl.constexpr, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, ARITHMETIC: tl.constexpr, UNSHIFT: tl.constexpr, PER_EXPERT: tl.constexpr,
    LEAVES_SMS: tl.constexpr,
):  # fmt: skip
    starts, ends = pair_spans(ends_L, expert_stride, L, EXPERTS, PER_EXPERT)
    tile_ends = tl.cumsum((ends - starts + BLOCK_M - 1) // BLOCK_M, 0)
    m_tiles = tl.max(tile_ends)
    n_tiles = tl.cdiv(N, BLOCK_N)
    if LEAVES_SMS:
        tile = m_tiles * n_tiles
        if computes_here(sms, allowed_sms, tl.bfloat16 != ARITHMETIC):
            tile = next_tile(sms)
        while tile < m_tiles * n_tiles:
            multiply_tile(
                tile, m_tiles, n_tiles, starts, ends, tile_ends, x, codes, scales, global_scale, out, N, K,
                EXPERTS, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, ARITHMETIC, UNSHIFT,
            )  # fmt: skip
            tile = next_tile(sms)
    else:
        for tile in range(tl.program_id(0), m_tiles * n_tiles, tl.num_programs(0)):
            multiply_tile(
                tile, m_tiles, n_tiles, starts, ends, tile_ends, x, codes, scales, global_scale, out, N, K,
                EXPERTS, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, ARITHMETIC, UNSHIFT,
            )  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """How a program cuts its work. It changes no bit of the result (a GPU test compares them)."""

    block_m: int
    """Pairs: wide tiles expand each weight for more rows, narrow ones waste less on small groups."""
    block_n: int
    num_warps: int
    num_stages: int


def tile_for(pairs_per_expert: float) -> Tile:
    """The tile for the expected load of an expert: the fastest of some thirty tried on an H100 at gemm1's shape."""
    if pairs_per_expert > 128:
        return Tile(256, 128, 8, 3)
    if pairs_per_expert > 64:
        return Tile(128, 128, 8, 3)
    return Tile(64, 128, 4, 3) if pairs_per_expert > 32 else Tile(32, 128, 4, 4)


def nvfp4_grouped_gemm(
    x_PK: Tensor, weights: RepackedWeights, ends_L: Tensor, tile: Tile, expert_stride: int | None = None
) -> Tensor:
    """out[p] = bf16(global_scale[e] * (x[p] @ (e2m1 * e4m3)[e]^T)) for the pairs p of each expert e.

    Leaves as many SMs free as :func:`moe_impl.carve_out.left_free` says, with the same bits.

    Args:
        x_PK: bf16 [P', K], read up to the experts' ends only.
        ends_L: int32 [L], ends of the experts' pairs, on the device.
        tile: see :func:`tile_for`.
        expert_stride: where expert e's pairs begin, times e; None: they are packed.

    Returns:
        bf16 [P', N], undefined past the ends.

    Raises:
        ValueError: K is not the weights', or no SM is left to compute on.
    """
    experts, blocks, N, half = weights.codes.shape
    K = x_PK.shape[1]
    check(2 * blocks * half == K, f"x has {K} columns, the weights {2 * blocks * half}")
    out = torch.empty(x_PK.shape[0], N, dtype=torch.bfloat16, device=x_PK.device)
    if x_PK.shape[0] == 0:
        return out
    most_tiles = (triton.cdiv(x_PK.shape[0], tile.block_m) + experts) * triton.cdiv(N, tile.block_n)
    num_sms, free = sm_count(x_PK), left_free()
    check(free < num_sms, f"{free} of {num_sms} SMs are to be left free: none computes")
    most_programs = programs(num_sms, tile.num_warps) if free else min(most_tiles, TILES_PER_SM * num_sms)
    # The interpreter has no bf16 arithmetic; the products are exact in either type.
    arithmetic = tl.bfloat16 if x_PK.is_cuda else tl.float32
    nvfp4_grouped_gemm_kernel[(most_programs,)](
        x_PK, weights.codes, weights.scales, weights.global_scale, ends_L, out,
        new_sms(x_PK.device) if free else None, N, K, expert_stride or 0, num_sms - free,
        experts, row_block(experts), tile.block_m, tile.block_n, weights.block_k, 8, arithmetic, 2.0**SCALE_SHIFT,
        expert_stride is not None, free > 0, num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return out
