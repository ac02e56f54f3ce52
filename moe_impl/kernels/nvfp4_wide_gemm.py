"""Grouped GEMM on NVFP4 weights for many rows an expert, on Hopper: warps that copy beside warps that multiply.

The products, their order and hence the bits are those of :mod:`moe_impl.kernels.nvfp4_grouped_gemm`. A tile is 256 rows
of weights by 128 pairs. One partition copies x, codes and scales into a ring of steps; two of four warps each expand
half of the weights in registers and multiply them by the x they share, so one expands or stores while the other keeps
the tensor cores busy, and a step asks L2 for 25 KiB in place of two tiles' 41. Written in Gluon: Triton's own compiler
splits no warps off for an operand in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from moe_impl.kernels.launch import check, row_block, sm_count
from moe_impl.kernels.nvfp4_fragments import EXPAND_PTX, ROW_PADDING, SCALE_SHIFT, UNIT, RepackedWeights
from moe_impl.kernels.nvfp4_grouped_gemm import WIDE_M, WIDE_N
from moe_impl.kernels.pair_places import expected_tiles, lane_place, lane_spans, program_grid, program_tiles

STAGES = 6
"""Steps of 64 columns in the ring; with the results of a tile they fill shared memory."""
LEAD = 4
"""Steps that the first half is ahead of the second: one stores its results while the other still multiplies."""
GROUP = 8
"""Row tiles that share a sweep over the columns, see :func:`moe_impl.kernels.pair_places.tile_place`."""
PROGRAM_STEPS = 128
"""Steps that a program takes at least, if there are as many for each SM, and at most about twice: 0.1 to 0.2 ms on an
H100. One that lived as long as the GEMM would let no communication kernel in."""
MULTIPLIER_REGISTERS, COPIER_REGISTERS = 240, 24
"""Of a thread: three partitions of 128 threads share 65536, and ptxas keeps to each partition's."""

copy_by_tma = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared  # Triton 3.6's name

X = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2))
CODES = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=3))
SCALES = gl.constexpr(gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=32, rank=2))
# Units, and two halves of a unit's 512 words: by slab (a warp's), r and t (a lane's), step of 16 columns.
CODES_READ = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 0, 1], [0, 0, 2], [1, 0, 0]],
        lane_bases=[[0, 0, 4], [0, 0, 8], [0, 0, 16], [0, 0, 32], [0, 0, 64]],
        warp_bases=[[0, 0, 128], [0, 1, 0]],
        block_bases=[],
        shape=[2, 2, 256],
    )
)
# Units, 64 words of scales: by slab, r, two steps; the four lanes t read the same.
SCALES_READ = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [1, 0]],
        lane_bases=[[0, 0], [0, 0], [0, 2], [0, 4], [0, 8]],
        warp_bases=[[0, 16], [0, 32]],
        block_bases=[],
        shape=[2, 64],
    )
)
# Units, slab and r, t, step: two steps' words of codes, neighbours for the PTX.
WORDS = gl.constexpr(
    gl.DistributedLinearLayout(
        reg_bases=[[0, 0, 0, 1], [1, 0, 0, 0]],
        lane_bases=[[0, 0, 1, 0], [0, 0, 2, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 4, 0, 0]],
        warp_bases=[[0, 8, 0, 0], [0, 16, 0, 0]],
        block_bases=[],
        shape=[2, 32, 4, 2],
    )
)
STORED = gl.constexpr(gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0]))


@gluon.jit
def expand_steps(words, scales, LEFT: gl.constexpr):
    """Weights times 2^-16, bf16 [128, 32], as wgmma's A operand: of words [2, 32, 4, 2] and scales [2, 32]."""
    words = gl.convert_layout(words, WORDS, assert_trivial=True)
    scales = gl.convert_layout(scales, gl.SliceLayout(2, gl.SliceLayout(3, WORDS)), assert_trivial=True)
    twice = gl.broadcast(gl.expand_dims(gl.expand_dims(scales, 2), 3), words)[0]
    a = gl.inline_asm_elementwise(
        EXPAND_PTX, "=&r,=&r,=&r,=&r,=&r,=&r,=&r,=&r,r,r,r,r", [words, twice], (gl.bfloat16,) * 8, is_pure=True, pack=2
    )
    step0 = gl.join(gl.join(a[0], a[1]), gl.join(a[2], a[3]))
    step1 = gl.join(gl.join(a[4], a[5]), gl.join(a[6], a[7]))
    # [N / 64, slab, r, t, odd column, row half, column half, step] to rows and columns
    values = gl.reshape(gl.join(step0, step1), (2, 4, 8, 4, 2, 2, 2, 2))
    values = gl.reshape(gl.permute(values, (0, 1, 5, 2, 7, 6, 3, 4)), (128, 32))
    return gl.convert_layout(values, LEFT, assert_trivial=True)


@gluon.jit
def expert_tiles(
    ends_L, expert_stride, L: gl.constexpr, EXPERTS: gl.constexpr, BLOCK_M: gl.constexpr, PER_EXPERT: gl.constexpr
):
    """int32 [EXPERTS] each, in every warp: lanes, where experts' pairs begin and end, row tiles up to each expert."""
    LANES: gl.constexpr = gl.BlockedLayout([EXPERTS // 32], [32], [gl.num_warps()], [0])
    lanes = gl.arange(0, EXPERTS, layout=LANES)
    starts, ends = lane_spans(lanes, ends_L, expert_stride, L, PER_EXPERT)
    return lanes, starts, ends, tl.cumsum((ends - starts + BLOCK_M - 1) // BLOCK_M, 0)


@gluon.jit
def copy_tiles(
    x, codes, scales, ends_L, N, K, expert_stride, num_sms, program_steps, x_ring, code_ring, scale_ring, full, empty,
    L: gl.constexpr, EXPERTS: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, GROUP: gl.constexpr,
    STAGES: gl.constexpr, PER_EXPERT: gl.constexpr,
):  # fmt: skip
    """The third partition: x, codes and scales of all steps of the program's tiles, as places of the ring empty."""
    lanes, starts, ends, tile_ends = expert_tiles(ends_L, expert_stride, L, EXPERTS, BLOCK_M, PER_EXPERT)
    m_tiles = gl.max(tile_ends, 0)
    n_tiles = gl.cdiv(N, BLOCK_N)
    first, stride = program_tiles(m_tiles * n_tiles, K // 64, num_sms, program_steps)
    stage = 0
    phase = 1  # every place is empty at first
    for tile in range(first, m_tiles * n_tiles, stride):
        expert, first_row, _, n_tile = lane_place(
            tile, m_tiles, n_tiles, lanes, starts, ends, tile_ends, BLOCK_M, GROUP
        )
        unit = expert * (gl.cdiv(N, ROW_PADDING) * ROW_PADDING // 64) + n_tile * (BLOCK_N // 64)
        for step in range(K // 64):
            copied = full.index(stage)
            mbarrier.wait(empty.index(stage), phase)
            mbarrier.expect(copied, BLOCK_M * 64 * 2 + BLOCK_N * (64 // 2 + 64 // 16))
            copy_by_tma(x, [first_row, step * 64], copied, x_ring.index(stage))
            copy_by_tma(codes, [unit, step * 2, 0], copied, code_ring.index(stage))
            copy_by_tma(scales, [unit, step * 64], copied, scale_ring.index(stage))
            stage += 1
            phase = phase ^ (1 if stage == STAGES else 0)
            stage = 0 if stage == STAGES else stage


@gluon.jit
def multiply_tile(
    factor, first_row, row_end, first_n, stage, phase, tell_at, out, N, K, x_ring, code_ring, scale_ring, results,
    full, empty, ahead, ROWS: gl.constexpr, STAGES: gl.constexpr, HALF: gl.constexpr,
):  # fmt: skip
    """128 rows of weights by ROWS pairs; returns the ring's next place and its phase."""
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, ROWS, 16])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, SUMS, 2)
    total = gl.zeros([128, ROWS], gl.float32, layout=SUMS)
    for step in range(K // 64):
        mbarrier.wait(full.index(stage), phase)
        words = code_ring.index(stage).slice(2 * HALF, 2, 0).load(CODES_READ)
        scales = scale_ring.index(stage).slice(2 * HALF, 2, 0).load(SCALES_READ)
        words0, words1 = gl.split(gl.permute(gl.reshape(words, (2, 32, 4, 2, 2)), (0, 1, 2, 4, 3)))
        scales0, scales1 = gl.split(gl.reshape(scales, (2, 32, 2)))
        columns = x_ring.index(stage).slice(0, ROWS, 0).permute((1, 0))
        left0 = expand_steps(words0, scales0, LEFT)
        total = warpgroup_mma(left0, columns.slice(0, 32, 0), total, is_async=True)
        left1 = expand_steps(words1, scales1, LEFT)
        total = warpgroup_mma(left1, columns.slice(32, 32, 0), total, is_async=True)
        # No wgmma runs on into a step that overwrites the registers of its weights.
        total, left0, left1 = warpgroup_mma_wait(0, [total, left0, left1])
        mbarrier.arrive(empty.index(stage))
        if HALF == 0:  # at the price of a second barrier of these warps in each step
            mbarrier.arrive(ahead, pred=step == tell_at)
        stage += 1
        phase = phase ^ (1 if stage == STAGES else 0)
        stage = 0 if stage == STAGES else stage
    rows_out = results.slice(0, ROWS, 0)
    rows_out.permute((1, 0)).store((total * factor).to(gl.bfloat16))
    result = rows_out.load(STORED)
    rows_m = first_row + gl.arange(0, ROWS, layout=gl.SliceLayout(1, STORED))
    rows_n = first_n + gl.arange(0, 128, layout=gl.SliceLayout(0, STORED))
    out_at = out + gl.expand_dims(rows_m.to(gl.int64) * N, 1) + gl.expand_dims(rows_n, 0)
    inside = gl.expand_dims(rows_m < row_end, 1) & gl.expand_dims(rows_n < N, 0)
    gl.store(out_at, result, mask=inside)
    return stage, phase


@gluon.jit
def multiply_tiles(
    global_scale, ends_L, out, N, K, expert_stride, num_sms, program_steps, x_ring, code_ring, scale_ring, results,
    full, empty, ahead,
    L: gl.constexpr, EXPERTS: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, GROUP: gl.constexpr,
    STAGES: gl.constexpr, LEAD: gl.constexpr, UNSHIFT: gl.constexpr,
    PER_EXPERT: gl.constexpr, HALF: gl.constexpr,
):  # fmt: skip
    """The first two partitions: each a half of the rows of weights of the program's tiles."""
    lanes, starts, ends, tile_ends = expert_tiles(ends_L, expert_stride, L, EXPERTS, BLOCK_M, PER_EXPERT)
    m_tiles = gl.max(tile_ends, 0)
    n_tiles = gl.cdiv(N, BLOCK_N)
    first, stride = program_tiles(m_tiles * n_tiles, K // 64, num_sms, program_steps)
    stage = 0
    phase = 0
    tell_at = gl.minimum(LEAD, K // 64) - 1
    if HALF == 1:  # out of step: two that expand at the same time leave the tensor cores idle
        mbarrier.wait(ahead, 0, pred=first < m_tiles * n_tiles)
    for tile in range(first, m_tiles * n_tiles, stride):
        expert, first_row, row_end, n_tile = lane_place(
            tile, m_tiles, n_tiles, lanes, starts, ends, tile_ends, BLOCK_M, GROUP
        )
        factor = gl.load(global_scale + expert) * UNSHIFT
        first_n = n_tile * BLOCK_N + HALF * 128
        if row_end - first_row <= BLOCK_M // 2:  # the last pairs of an expert: half the products
            stage, phase = multiply_tile(
                factor, first_row, row_end, first_n, stage, phase, tell_at, out, N, K, x_ring, code_ring, scale_ring,
                results.index(HALF), full, empty, ahead, BLOCK_M // 2, STAGES, HALF,
            )  # fmt: skip
        else:
            stage, phase = multiply_tile(
                factor, first_row, row_end, first_n, stage, phase, tell_at, out, N, K, x_ring, code_ring, scale_ring,
                results.index(HALF), full, empty, ahead, BLOCK_M, STAGES, HALF,
            )  # fmt: skip
        tell_at = -1


@gluon.jit
def nvfp4_wide_gemm_kernel(
    x, codes, scales, global_scale, ends_L, out, N, K, expert_stride, num_sms, program_steps,
    L: gl.constexpr, EXPERTS: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, GROUP: gl.constexpr,
    STAGES: gl.constexpr, LEAD: gl.constexpr, UNSHIFT: gl.constexpr,
    PER_EXPERT: gl.constexpr, MULTIPLIER_REGISTERS: gl.constexpr, COPIER_REGISTERS: gl.constexpr,
):  # fmt: skip
    UNITS: gl.constexpr = BLOCK_N // 64
    x_ring = gl.allocate_shared_memory(gl.bfloat16, [STAGES, BLOCK_M, 64], X)
    code_ring = gl.allocate_shared_memory(gl.int32, [STAGES, UNITS, 2, 256], CODES)
    scale_ring = gl.allocate_shared_memory(gl.int32, [STAGES, UNITS, 64], SCALES)
    results = gl.allocate_shared_memory(gl.bfloat16, [2, BLOCK_M, 128], X)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    ahead = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(full.index(stage), count=1)
        mbarrier.init(empty.index(stage), count=2)
    mbarrier.init(ahead, count=1)
    fence_async_shared()
    gl.warp_specialize(
        [
            (multiply_tiles, (
                global_scale, ends_L, out, N, K, expert_stride, num_sms, program_steps, x_ring, code_ring, scale_ring,
                results, full, empty, ahead, L, EXPERTS, BLOCK_M, BLOCK_N, GROUP, STAGES, LEAD, UNSHIFT, PER_EXPERT, 0,
            )),
            (multiply_tiles, (
                global_scale, ends_L, out, N, K, expert_stride, num_sms, program_steps, x_ring, code_ring, scale_ring,
                results, full, empty, ahead, L, EXPERTS, BLOCK_M, BLOCK_N, GROUP, STAGES, LEAD, UNSHIFT, PER_EXPERT, 1,
            )),
            (copy_tiles, (
                x, codes, scales, ends_L, N, K, expert_stride, num_sms, program_steps, x_ring, code_ring, scale_ring,
                full, empty, L, EXPERTS, BLOCK_M, BLOCK_N, GROUP, STAGES, PER_EXPERT,
            )),
        ],
        [4, 1],
        [MULTIPLIER_REGISTERS, COPIER_REGISTERS],
    )  # fmt: skip


def nvfp4_wide_gemm(
    x_PK: Tensor,
    weights: RepackedWeights,
    ends_L: Tensor,
    pairs_per_expert: float,
    expert_stride: int | None = None,
) -> Tensor:
    """out[p] = bf16(global_scale[e] * (x[p] @ (e2m1 * e4m3)[e]^T)) for the pairs p of each expert e.

    Takes every SM: a program fills one, even one that finds no tile. So none is started for rows of x that nobody
    expects; where more pairs come, programs are longer.

    Args:
        x_PK: bf16 [P', K]; rows past the experts' ends may hold anything.
        ends_L: int32 [L], ends of the experts' pairs, on the device.
        pairs_per_expert: the expected load; sets the number of programs, no bit of the result.
        expert_stride: where expert e's pairs begin, times e; None: they are packed.

    Returns:
        bf16 [P', N], undefined past the ends.

    Raises:
        ValueError: K is not the weights'.
    """
    experts, units, N, (rows, K) = weights.codes.shape[0], weights.codes.shape[1], weights.rows, x_PK.shape
    check(weights.columns == K, f"x has {K} columns, the weights {weights.columns}")
    out = torch.empty(rows, N, dtype=torch.bfloat16, device=x_PK.device)
    if rows == 0:
        return out
    codes = weights.codes.view(experts * units, K // UNIT * 2, 256)  # TMA copies at most 256 in a row
    scales = weights.scales.view(experts * units, K)
    num_sms = sm_count(x_PK)
    most = (triton.cdiv(rows, WIDE_M) + experts) * triton.cdiv(N, WIDE_N)
    expected = expected_tiles(experts, pairs_per_expert, N, WIDE_M, WIDE_N)
    nvfp4_wide_gemm_kernel[(program_grid(expected, most, K // UNIT, num_sms, PROGRAM_STEPS),)](
        TensorDescriptor.from_tensor(x_PK, [WIDE_M, UNIT], X.value),
        TensorDescriptor.from_tensor(codes, [WIDE_N // UNIT, 2, 256], CODES.value),
        TensorDescriptor.from_tensor(scales, [WIDE_N // UNIT, UNIT], SCALES.value),
        weights.global_scale, ends_L, out, N, K, expert_stride or 0, num_sms, PROGRAM_STEPS,
        experts, max(32, row_block(experts)), WIDE_M, WIDE_N, GROUP, STAGES, LEAD, 2.0**SCALE_SHIFT,
        expert_stride is not None, MULTIPLIER_REGISTERS, COPIER_REGISTERS, num_warps=4,
    )  # fmt: skip
    return out
