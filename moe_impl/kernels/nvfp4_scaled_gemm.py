"""Grouped GEMM of NVFP4 rows and NVFP4 weights on FP4 tensor cores: what W4A4 runs on GPUs that have them.

One ``tl.dot_scaled`` multiplies e2m1 codes under e4m3 block scales: ``tcgen05.mma`` of kind ``mxf4nvf4`` on sm_100 and
sm_103, ``mma.sync`` of the same kind on sm_120. As in :mod:`moe_impl.kernels.nvfp4_grouped_gemm` weights are the A
operand, so that a group of few rows is a narrow tile, and the tensor scales multiply the accumulator. Weight scales are
read in the 128x4 blocked layout (``nvfp4/SPEC.md`` 8), 512 contiguous bytes a tile; the rows' own as they travel.

Compiled and inspected for those GPUs; not run on this hardware. Elsewhere, and in the interpreter, which reads e4m3
scales as powers of two, the same kernel expands both operands and makes the same products exactly.
"""

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.carve_out import left_free
from moe_impl.kernels.free_sms import computes_here, new_sms, next_tile, programs
from moe_impl.kernels.launch import check, row_block, sm_count
from moe_impl.kernels.nvfp4_blocks import e2m1_bits_to_float, e4m3_bits_to_float
from moe_impl.kernels.nvfp4_grouped_gemm import TILES_PER_SM
from moe_impl.kernels.pair_places import pair_spans, tile_place
from moe_impl.nvfp4 import TILE_ROWS, NvFp4Tensor, swizzle
from moe_impl.payload import stored_row_bytes
from moe_impl.support import has_fp4

EXPANDED_SHIFT = 32
"""An expanded operand is 2^-16 times too small, as that of the other grouped GEMM; here both are expanded."""


@dataclass(frozen=True)
class BlockedWeights:
    """NVFP4 weights of one projection as FP4 tensor cores read them, made by :func:`blocked`."""

    codes: Tensor
    """uint8 [L, N, K / 2], as a checkpoint holds them."""
    scales: Tensor
    """uint8 [L, N' * K / 16]: e4m3 bits in the 128x4 blocked layout, N' being N rounded up to 128."""
    global_scale: Tensor
    """float32 [L]."""


def blocked(weights: NvFp4Tensor) -> BlockedWeights:
    """The same codes, and scales in the blocked layout.

    Raises:
        ValueError: K is no multiple of 64.
    """
    width = 2 * weights.packed.shape[-1]
    check(width % 64 == 0, f"K must be a multiple of 64, got {width}")
    return BlockedWeights(weights.packed, swizzle(weights.scales).view(torch.uint8), weights.global_scale)


@triton.jit
def multiply_blocks(
    a, a_scales, b, b_scales, total, A_ROWS: tl.constexpr, B_ROWS: tl.constexpr, BYTES: tl.constexpr,
    FP4: tl.constexpr, ARITHMETIC: tl.constexpr,
):  # fmt: skip
    """total [A_ROWS, B_ROWS] += a @ b^T under their scales.

    Code bytes uint8 [A_ROWS, BYTES] and [BYTES, B_ROWS], e4m3 bits uint8 [A_ROWS, BYTES / 8] and [B_ROWS, BYTES / 8].
    Without FP4 tensor cores the sum is 2^-32 times too small.
    """
    if FP4:
        a_scales = a_scales.to(tl.float8e4nv, bitcast=True)
        b_scales = b_scales.to(tl.float8e4nv, bitcast=True)
        total = tl.dot_scaled(a, a_scales, "e2m1", b, b_scales, "e2m1", total)
    else:
        a_factors = e4m3_bits_to_float(a_scales, ARITHMETIC)[:, :, None]
        b_factors = e4m3_bits_to_float(b_scales, ARITHMETIC)[:, :, None]
        rows = tl.trans(b)
        for shift in tl.static_range(0, 8, 4):  # low nibbles, then high ones
            a_values = e2m1_bits_to_float(a, shift, ARITHMETIC).reshape(A_ROWS, BYTES // 8, 8) * a_factors
            b_values = e2m1_bits_to_float(rows, shift, ARITHMETIC).reshape(B_ROWS, BYTES // 8, 8) * b_factors
            b_values = tl.trans(b_values.reshape(B_ROWS, BYTES))
            total = tl.dot(a_values.reshape(A_ROWS, BYTES), b_values, total)
    return total


@triton.jit
def multiply_scaled_tile(
    tile, m_tiles, n_tiles, starts, ends, tile_ends, rows, row_P, codes, scales, global_scale, out, N, half, row_bytes,
    EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    GATHER: tl.constexpr, FP4: tl.constexpr, ARITHMETIC: tl.constexpr, UNSHIFT: tl.constexpr,
):  # fmt: skip
    BYTES: tl.constexpr = BLOCK_K // 2
    SCALES: tl.constexpr = BLOCK_K // 16
    expert, first_row, row_end, n_tile = tile_place(
        tile, m_tiles, n_tiles, starts, ends, tile_ends, EXPERTS, BLOCK_M, GROUP
    )
    rows_m = first_row + tl.arange(0, BLOCK_M)
    rows_n = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = rows_m < row_end, rows_n < N
    columns = tl.arange(0, BYTES)
    code_at = codes + (expert.to(tl.int64) * N + rows_n[:, None]) * half + columns[None, :]
    found = rows_m
    if GATHER:
        found = tl.load(row_P + rows_m, mask=in_m, other=0)
    row_at = rows + found.to(tl.int64)[None, :] * row_bytes + columns[:, None]
    row_scale_at = rows + half + found.to(tl.int64)[:, None] * row_bytes + tl.arange(0, SCALES)[None, :]
    # Scale tiles of 128 rows and 4 columns (64 codes), 512 bytes each: [r % 32][r // 32][c].
    row_tile = expert.to(tl.int64) * tl.cdiv(N, 128) + n_tile * (BLOCK_N // 128) + tl.arange(0, BLOCK_N // 128)
    in_tile = (n_tile * (BLOCK_N // 128) + tl.arange(0, BLOCK_N // 128)) < tl.cdiv(N, 128)
    within = tl.arange(0, BLOCK_K // 64)[:, None] * 512 + tl.arange(0, 512)[None, :]
    scale_at = scales + (row_tile * (half // 32) * 512)[:, None, None] + within[None, :, :]
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for _ in range(half // BYTES):
        weight_codes = tl.load(code_at, mask=in_n[:, None], other=0)
        weight_scales = tl.load(scale_at, mask=in_tile[:, None, None], other=0)
        row_codes = tl.load(row_at, mask=in_m[None, :], other=0)
        row_scales = tl.load(row_scale_at, mask=in_m[:, None], other=0)
        weight_scales = weight_scales.reshape(BLOCK_N // 128, BLOCK_K // 64, 32, 4, 4).trans(0, 3, 2, 1, 4)
        total = multiply_blocks(
            weight_codes, weight_scales.reshape(BLOCK_N, SCALES), row_codes, row_scales, total,
            BLOCK_N, BLOCK_M, BYTES, FP4, ARITHMETIC,
        )  # fmt: skip
        code_at += BYTES
        scale_at += BLOCK_K // 64 * 512
        row_at += BYTES
        row_scale_at += SCALES
    result = (total * (tl.load(global_scale + expert) * UNSHIFT)).to(tl.bfloat16)
    out_at = out + rows_m.to(tl.int64)[:, None] * N + rows_n[None, :]
    tl.store(out_at, tl.trans(result), mask=in_m[:, None] & in_n[None, :])


@triton.jit
def nvfp4_scaled_gemm_kernel(
    rows, row_P, codes, scales, global_scale, ends_L, out, sms, N, half, row_bytes, expert_stride, allowed_sms,
    L: tl.constexpr, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, GATHER: tl.constexpr, FP4: tl.constexpr, ARITHMETIC: tl.constexpr, UNSHIFT: tl.constexpr,
    PER_EXPERT: tl.constexpr, LEAVES_SMS: tl.constexpr,
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
            multiply_scaled_tile(
                tile, m_tiles, n_tiles, starts, ends, tile_ends, rows, row_P, codes, scales, global_scale, out,
                N, half, row_bytes, EXPERTS, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GATHER, FP4, ARITHMETIC, UNSHIFT,
            )  # fmt: skip
            tile = next_tile(sms)
    else:
        for tile in range(tl.program_id(0), m_tiles * n_tiles, tl.num_programs(0)):
            multiply_scaled_tile(
                tile, m_tiles, n_tiles, starts, ends, tile_ends, rows, row_P, codes, scales, global_scale, out,
                N, half, row_bytes, EXPERTS, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, GATHER, FP4, ARITHMETIC, UNSHIFT,
            )  # fmt: skip


@dataclass(frozen=True)
class ScaledTile:
    """How a program cuts its work: 128 weight rows, which a tcgen05 instruction takes, by some rows."""

    block_m: int
    """Rows, 16 at least; of 16, scales are less than 4 bytes a thread, which are not copied ahead."""
    block_k: int
    """Codes a step, 64, 128 or 256; as many of them as divide K."""
    num_warps: int
    num_stages: int


def scaled_tile_for(pairs_per_expert: float) -> ScaledTile:
    """The tile for the expected load of an expert: as narrow as holds it, up to 128. By what spills no register on
    sm_100 and sm_120; not measured."""
    if pairs_per_expert <= 32:
        return ScaledTile(32, 256, 4, 4)
    if pairs_per_expert <= 64:
        return ScaledTile(64, 256, 8, 4)
    return ScaledTile(128, 128, 8, 4)


def nvfp4_scaled_gemm(
    rows_MB: Tensor,
    weights: BlockedWeights,
    ends_L: Tensor,
    tile: ScaledTile,
    expert_stride: int | None = None,
    row_P: Tensor | None = None,
) -> Tensor:
    """out[p] = bf16(global_scale[e] * ((e2m1 * e4m3)[row[p]] @ (e2m1 * e4m3)[e]^T)) for the pairs p of each expert e.

    Leaves as many SMs free as :func:`moe_impl.carve_out.left_free` says, with the same bits.

    Args:
        rows_MB: uint8 [M', stored_row_bytes], as :func:`moe_impl.kernels.quantize_rows.quantize_rows` lays rows out;
            only those of pairs below the experts' ends are read.
        weights: their ``global_scale`` is to hold the rows' tensor scale, too.
        ends_L: int32 [L], ends of the experts' pairs, on the device.
        tile: see :func:`scaled_tile_for`.
        expert_stride: where expert e's pairs begin, times e; None: they are packed.
        row_P: int32 [P'], the row of each pair; None: pair p is row p.

    Returns:
        bf16 [P', N], undefined past the ends.

    Raises:
        ValueError: rows are not as wide as the weights, or no SM is left to compute on.
    """
    experts, N, half = weights.codes.shape
    row_bytes, wanted = rows_MB.shape[1], stored_row_bytes("nvfp4", 2 * half)
    check(row_bytes == wanted, f"rows of {2 * half} values take {wanted} bytes, got {row_bytes}")
    pairs = rows_MB.shape[0] if row_P is None else row_P.shape[0]
    out = torch.empty(pairs, N, dtype=torch.bfloat16, device=rows_MB.device)
    if pairs == 0:
        return out
    most_tiles = (triton.cdiv(pairs, tile.block_m) + experts) * triton.cdiv(N, TILE_ROWS)
    num_sms, free = sm_count(rows_MB), left_free()
    check(free < num_sms, f"{free} of {num_sms} SMs are to be left free: none computes")
    most_programs = programs(num_sms, tile.num_warps) if free else min(most_tiles, TILES_PER_SM * num_sms)
    fp4 = has_fp4(torch.cuda.get_device_capability(rows_MB.device) if rows_MB.is_cuda else None)
    # The interpreter has no bf16 arithmetic; the products are exact in either type.
    arithmetic = tl.bfloat16 if rows_MB.is_cuda else tl.float32
    nvfp4_scaled_gemm_kernel[(most_programs,)](
        rows_MB, row_P, weights.codes, weights.scales, weights.global_scale, ends_L, out,
        new_sms(rows_MB.device) if free else None, N, half, row_bytes, expert_stride or 0, num_sms - free,
        experts, row_block(experts), tile.block_m, TILE_ROWS, math.gcd(tile.block_k, 2 * half), 8,
        row_P is not None, fp4, arithmetic, 1.0 if fp4 else 2.0**EXPANDED_SHIFT,
        expert_stride is not None, free > 0, num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return out
