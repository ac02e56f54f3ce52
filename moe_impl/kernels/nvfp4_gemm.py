"""The grouped GEMM on NVFP4 weights by the fastest kernel for this GPU and load: the bits are the same of each."""

import functools

import torch
import triton
from torch import Tensor

from moe_impl.carve_out import left_free
from moe_impl.kernels.launch import sm_count
from moe_impl.kernels.nvfp4_fragments import RepackedWeights
from moe_impl.kernels.nvfp4_grouped_gemm import WIDE_M, WIDE_N, nvfp4_grouped_gemm, tile_for
from moe_impl.kernels.pair_places import expected_tiles

HOPPER = 9
"""The major compute capability that has wgmma: no GPU before or after it does."""
GLUON_SINCE, GLUON_UNTIL = (3, 6), (3, 9)
"""First and last release of Triton in whose Gluon, which still moves, the wide kernel was compiled."""
WIDE_FROM = 128
"""Expected pairs of an expert: the fewest with which the wide kernel was measured."""
WIDE_EXPERTS = 128
"""Local experts at most: each warp of the wide kernel holds where all begin and end; of 256 it would spill some."""


@functools.cache
def gluon_known() -> bool:
    """Whether this Triton's Gluon is one that the wide kernel is written in."""
    release = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return GLUON_SINCE <= release <= GLUON_UNTIL


def takes_wide(x_PK: Tensor, weights: RepackedWeights, pairs_per_expert: float) -> bool:
    """Whether the wide kernel multiplies: on Hopper, with a tile for every SM at least, all SMs being its own."""
    if not x_PK.is_cuda or left_free() or not gluon_known():
        return False
    experts = weights.codes.shape[0]
    if experts > WIDE_EXPERTS or pairs_per_expert < WIDE_FROM:
        return False
    tiles = expected_tiles(experts, pairs_per_expert, weights.rows, WIDE_M, WIDE_N)
    major, _ = torch.cuda.get_device_capability(x_PK.device)
    return major == HOPPER and tiles >= sm_count(x_PK)


def nvfp4_gemm(
    x_PK: Tensor,
    weights: RepackedWeights,
    ends_L: Tensor,
    pairs_per_expert: float,
    expert_stride: int | None = None,
) -> Tensor:
    """:func:`moe_impl.kernels.nvfp4_grouped_gemm.nvfp4_grouped_gemm`, for the expected load of an expert."""
    if takes_wide(x_PK, weights, pairs_per_expert):
        from moe_impl.kernels.nvfp4_wide_gemm import nvfp4_wide_gemm

        return nvfp4_wide_gemm(x_PK, weights, ends_L, pairs_per_expert, expert_stride)
    return nvfp4_grouped_gemm(x_PK, weights, ends_L, tile_for(pairs_per_expert), expert_stride)
