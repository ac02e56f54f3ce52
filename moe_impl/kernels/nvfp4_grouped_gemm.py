"""Grouped GEMM that reads NVFP4 weights and expands them to bf16 in registers.

e2m1 x e4m3 products have at most 6 significant bits, so the expansion is exact in bf16 and the tensor core computes, in
fp32, the very products an FP4 tensor core would: results are "emulated (exact products)". The per-tensor scale stays
out of the 16-bit operand and multiplies the accumulator. Weights are the A operand (wgmma reads A from registers), so
the tile is computed transposed.

Products are added in the order of K, 16 at a time, whatever the tile: bits do not depend on it, and on an H100 they are
those of ``torch._grouped_mm`` on the dequantized weights (3e-3 was allowed, 0 found at DeepSeek-V3's shapes).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from moe_impl.carve_out import left_free
from moe_impl.kernels.free_sms import computes_here, new_sms, next_tile, programs
from moe_impl.kernels.launch import check, row_block, sm_count
from moe_impl.kernels.nvfp4_fragments import ROW_PADDING, SCALE_SHIFT, UNIT, RepackedWeights, expand
from moe_impl.kernels.pair_places import pair_spans, tile_place

TILES_PER_SM = 64
"""Programs a multiprocessor gets at most: short ones let a waiting communication kernel in; a worst-case grid of one
program a tile would start tens of thousands that find no rows."""


@triton.jit
def settled(total, ARITHMETIC: tl.constexpr):
    """``total`` itself, which no tensor core still adds to: the compiler waits before it is looked at.

    Else it lets wgmmas run on into the next step, which overwrites the registers that hold their weights (seen in
    Triton 3.6: whole tiles of NaN).
    """
    if tl.bfloat16 == ARITHMETIC:
        return tl.inline_asm_elementwise("", "=f,0", [total], tl.float32, is_pure=True, pack=1)
    else:
        return total


@triton.jit
def multiply_tile(
    tile, m_tiles, n_tiles, starts, ends, tile_ends, x, codes, scales, global_scale, out, N, K,
    EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, ARITHMETIC: tl.constexpr, UNSHIFT: tl.constexpr, BY_TMA: tl.constexpr,
):  # fmt: skip
    UNITS_N: tl.constexpr = BLOCK_N // 64
    UNITS_K: tl.constexpr = BLOCK_K // 64
    expert, first_row, row_end, n_tile = tile_place(
        tile, m_tiles, n_tiles, starts, ends, tile_ends, EXPERTS, BLOCK_M, GROUP
    )
    rows_m = first_row + tl.arange(0, BLOCK_M)
    rows_n = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m, in_n = rows_m < row_end, rows_n < N
    # Units of 64 columns follow one another. Rows are padded to whole tiles: no load of weights has a mask.
    units_n = (
        expert.to(tl.int64) * (tl.cdiv(N, ROW_PADDING) * ROW_PADDING // 64) + n_tile * UNITS_N + tl.arange(0, UNITS_N)
    )
    code_at = codes + (units_n * (K // 64) * 512)[:, None] + tl.arange(0, UNITS_K * 512)[None, :]
    scale_at = scales + (units_n * (K // 64) * 64)[:, None] + tl.arange(0, UNITS_K * 64)[None, :]
    if not BY_TMA:
        x_at = x + rows_m.to(tl.int64)[None, :] * K + tl.arange(0, BLOCK_K)[:, None]
    total = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for step in range(K // BLOCK_K):
        weights = expand(tl.load(code_at), tl.load(scale_at), UNITS_N, UNITS_K, ARITHMETIC)
        if BY_TMA:
            columns = x.load([first_row, step * BLOCK_K]).T.to(ARITHMETIC)
        else:
            columns = tl.load(x_at, mask=in_m[None, :], other=0.0).to(ARITHMETIC)
            x_at += BLOCK_K
        total = tl.dot(weights, columns, total)
        total = settled(total, ARITHMETIC)
        code_at += UNITS_K * 512
        scale_at += UNITS_K * 64
    result = (total * (tl.load(global_scale + expert) * UNSHIFT)).to(tl.bfloat16)
    out_at = out + rows_m.to(tl.int64)[:, None] * N + rows_n[None, :]
    tl.store(out_at, tl.trans(result), mask=in_m[:, None] & in_n[None, :])


@triton.jit
def nvfp4_grouped_gemm_kernel(
    x, codes, scales, global_scale, ends_L, out, sms, N, K, expert_stride, allowed_sms,
    L: tl.constexpr, EXPERTS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, ARITHMETIC: tl.constexpr, UNSHIFT: tl.constexpr, PER_EXPERT: tl.constexpr,
    BY_TMA: tl.constexpr, LEAVES_SMS: tl.constexpr, LOOPS: tl.constexpr,
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
                EXPERTS, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, ARITHMETIC, UNSHIFT, BY_TMA,
            )  # fmt: skip
            tile = next_tile(sms)
    elif LOOPS:
        for tile in range(tl.program_id(0), m_tiles * n_tiles, tl.num_programs(0)):
            multiply_tile(
                tile, m_tiles, n_tiles, starts, ends, tile_ends, x, codes, scales, global_scale, out, N, K,
                EXPERTS, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, ARITHMETIC, UNSHIFT, BY_TMA,
            )  # fmt: skip
    elif tl.program_id(0) < m_tiles * n_tiles:  # the loop alone would cost some thirty registers a thread
        multiply_tile(
            tl.program_id(0), m_tiles, n_tiles, starts, ends, tile_ends, x, codes, scales, global_scale, out, N, K,
            EXPERTS, BLOCK_M, BLOCK_N, BLOCK_K, GROUP, ARITHMETIC, UNSHIFT, BY_TMA,
        )  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """How a program cuts its work. It changes no bit of the result (a GPU test compares them)."""

    block_m: int
    """Pairs: wide tiles expand each weight for more rows, narrow ones waste less on small groups. 16 at least: for
    fewer Triton takes mma.sync in wgmma's place, whose sums have other bits."""
    block_n: int
    """Rows of weights: 64 or 128."""
    block_k: int
    """Columns a step, or the most of 128 and 64 that K is a multiple of."""
    num_warps: int
    num_stages: int

    @property
    def by_tma(self) -> bool:
        """x is copied by TMA, neighbouring experts' rows at its edge, too; else row by row: no slower for narrow tiles,
        and the host makes no descriptor."""
        return self.block_m > 32


TILES = (
    (10.0, Tile(16, 64, 256, 4, 3)),
    (40.0, Tile(32, 128, 64, 4, 4)),
    (72.0, Tile(64, 128, 128, 4, 3)),
)
"""By the most expected pairs of an expert: the fastest, or within 1 %, of some thirty tried on an H100 at both shapes
of DeepSeek-V3's shard. Groups vary by about the root of their mean; one tile should hold nearly all of a small one."""
WIDEST = Tile(128, 128, 64, 4, 3)
"""Two programs of one warpgroup share an SM: one expands or stores while the other multiplies."""
WIDE_M, WIDE_N = 128, 256
"""Pairs and rows of weights of a tile of :mod:`moe_impl.kernels.nvfp4_wide_gemm`, which not every Triton can import."""


def tile_for(pairs_per_expert: float) -> Tile:
    """The tile for the expected load of an expert."""
    return next((tile for most, tile in TILES if pairs_per_expert <= most), WIDEST)


def nvfp4_grouped_gemm(
    x_PK: Tensor, weights: RepackedWeights, ends_L: Tensor, tile: Tile, expert_stride: int | None = None
) -> Tensor:
    """out[p] = bf16(global_scale[e] * (x[p] @ (e2m1 * e4m3)[e]^T)) for the pairs p of each expert e.

    Leaves as many SMs free as :func:`moe_impl.carve_out.left_free` says, with the same bits.

    Args:
        x_PK: bf16 [P', K]; rows past the experts' ends may hold anything.
        ends_L: int32 [L], ends of the experts' pairs, on the device.
        tile: see :func:`tile_for`.
        expert_stride: where expert e's pairs begin, times e; None: they are packed.

    Returns:
        bf16 [P', N], undefined past the ends.

    Raises:
        ValueError: K is not the weights', or no SM is left to compute on.
    """
    experts, (rows, K), N = weights.codes.shape[0], x_PK.shape, weights.rows
    check(weights.columns == K, f"x has {K} columns, the weights {weights.columns}")
    out = torch.empty(rows, N, dtype=torch.bfloat16, device=x_PK.device)
    if rows == 0:
        return out
    block_k = next(width for width in (tile.block_k, 128, UNIT) if K % width == 0)
    x = TensorDescriptor.from_tensor(x_PK, [tile.block_m, block_k]) if tile.by_tma else x_PK
    most_tiles = (triton.cdiv(rows, tile.block_m) + experts) * triton.cdiv(N, tile.block_n)
    num_sms, free = sm_count(x_PK), left_free()
    check(free < num_sms, f"{free} of {num_sms} SMs are to be left free: none computes")
    most_programs = programs(num_sms, tile.num_warps) if free else min(most_tiles, TILES_PER_SM * num_sms)
    # The interpreter has no bf16 arithmetic; the products are exact in either type.
    arithmetic = tl.bfloat16 if x_PK.is_cuda else tl.float32
    nvfp4_grouped_gemm_kernel[(most_programs,)](
        x, weights.codes, weights.scales, weights.global_scale, ends_L, out,
        new_sms(x_PK.device) if free else None, N, K, expert_stride or 0, num_sms - free,
        experts, row_block(experts), tile.block_m, tile.block_n, block_k, 8, arithmetic, 2.0**SCALE_SHIFT,
        expert_stride is not None, tile.by_tma, free > 0, not free and most_programs < most_tiles,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return out
