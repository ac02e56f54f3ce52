"""Backend ``triton`` for W4A4 on GPUs with FP4 tensor cores: rows and weights meet as NVFP4 codes, nothing is expanded.

Compiled and inspected for sm_100 and sm_120; not run on this hardware.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from moe_impl.kernels.nvfp4_scaled_gemm import BlockedWeights, blocked, nvfp4_scaled_gemm, scaled_tile_for
from moe_impl.kernels.quantize_rows import quantize_rows
from moe_impl.kernels.silu_mul_quantize import silu_mul_quantize
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights


@dataclass(frozen=True)
class Fp4Experts:
    """Both projections as FP4 tensor cores read them, and what quantizes the activations."""

    w13: BlockedWeights
    """Its tensor scales hold the activations', too, as those of ``w2`` do."""
    w2: BlockedWeights
    x_scale: Tensor
    """fp32 0-d: decode scale of x, the largest of the layer's experts."""
    h_scale: Tensor
    """The same of h."""


class TritonFp4Experts:
    """See :class:`moe_impl.experts.base.ExpertsBackend`."""

    deterministic = True
    batch_invariant = False  # tiles sum in the same order, but no GPU has compared their bits

    def __init__(self, pairs_per_token: float) -> None:
        self._pairs_per_token = pairs_per_token

    def prepare(self, weights: LayerWeights) -> Fp4Experts:
        x_scale, h_scale = weights.w13_input_scale.amax(), weights.w2_input_scale.amax()
        w13 = replace(weights.w13, global_scale=weights.w13.global_scale * x_scale)
        w2 = replace(weights.w2, global_scale=weights.w2.global_scale * h_scale)
        return Fp4Experts(blocked(w13), blocked(w2), x_scale, h_scale)

    def _multiply(
        self, rows_MB: Tensor, weights: BlockedWeights, state: UbatchState, row_P: Tensor | None = None
    ) -> Tensor:
        pairs = state.pairs
        tile = scaled_tile_for(self._pairs_per_token * (state.tokens.stop - state.tokens.start))
        return nvfp4_scaled_gemm(rows_MB, weights, pairs.ends_L, tile, pairs.expert_stride, row_P)

    def quantize(self, prepared: Fp4Experts, rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
        return quantize_rows(rows_NH, prepared.x_scale, count)

    def permute(self, prepared: Fp4Experts, state: UbatchState) -> None:
        """Nothing beyond the pairs' order: gemm1 looks its rows up."""

    def gemm1(self, prepared: Fp4Experts, state: UbatchState) -> None:
        state.gate_up_PJ = self._multiply(state.received_MB, prepared.w13, state, state.pairs.row_P)
        state.received_MB = None

    def silu_mul(self, prepared: Fp4Experts, state: UbatchState) -> None:
        ends_L, expert_stride = state.pairs.ends_L, state.pairs.expert_stride
        state.h_PI = silu_mul_quantize(
            state.gate_up_PJ, ends_L, prepared.h_scale, expert_stride=expert_stride, expanded=False
        )
        state.gate_up_PJ = None

    def gemm2(self, prepared: Fp4Experts, state: UbatchState) -> None:
        state.outputs_PH = self._multiply(state.h_PI, prepared.w2, state)
        state.h_PI = None
