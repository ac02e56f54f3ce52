"""Backend ``triton``: a grouped GEMM that reads NVFP4 weights and expands them in registers (CUDA only)."""

from dataclasses import dataclass

from torch import Tensor

from moe_impl.experts.permute import GathersRows
from moe_impl.kernels.nvfp4_fragments import RepackedWeights, repack
from moe_impl.kernels.nvfp4_gemm import nvfp4_gemm
from moe_impl.kernels.silu_mul import silu_mul
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights


@dataclass(frozen=True)
class PackedExperts:
    """Both projections in the kernel's layout."""

    w13: RepackedWeights
    w2: RepackedWeights


class TritonExperts(GathersRows):
    """See :class:`moe_impl.experts.base.ExpertsBackend`."""

    deterministic = True
    batch_invariant = True  # GPU tests compare the tile sizes and both kernels bit for bit

    def __init__(self, pairs_per_token: float) -> None:
        self._pairs_per_token = pairs_per_token

    def prepare(self, weights: LayerWeights) -> PackedExperts:
        return PackedExperts(repack(weights.w13), repack(weights.w2))

    def _multiply(self, x_PK: Tensor, weights: RepackedWeights, state: UbatchState) -> Tensor:
        """By the expected pairs of one local expert: what a host can know before the counts arrive."""
        pairs_per_expert = self._pairs_per_token * (state.tokens.stop - state.tokens.start)
        return nvfp4_gemm(x_PK, weights, state.pairs.ends_L, pairs_per_expert, state.pairs.expert_stride)

    def gemm1(self, prepared: PackedExperts, state: UbatchState) -> None:
        state.gate_up_PJ = self._multiply(state.permuted_PH, prepared.w13, state)
        state.permuted_PH = None

    def silu_mul(self, prepared: PackedExperts, state: UbatchState) -> None:
        state.h_PI = silu_mul(state.gate_up_PJ, state.pairs.ends_L, expert_stride=state.pairs.expert_stride)
        state.gate_up_PJ = None

    def gemm2(self, prepared: PackedExperts, state: UbatchState) -> None:
        state.outputs_PH = self._multiply(state.h_PI, prepared.w2, state)
        state.h_PI = None
