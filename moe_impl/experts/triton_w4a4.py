"""Backend ``triton`` for W4A4: the NVFP4 grouped GEMM on activations that were quantized to NVFP4 (CUDA only).

A GPU with FP4 tensor cores multiplies the codes; here both sides are expanded to bf16, which makes the same products
exactly. Tensor scales are left to the GEMMs' epilogues.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from moe_impl.experts.triton_backend import PackedExperts, TritonExperts
from moe_impl.kernels.expand_pairs import expand_pairs
from moe_impl.kernels.nvfp4_fragments import repack
from moe_impl.kernels.quantize_rows import quantize_rows
from moe_impl.kernels.silu_mul_quantize import silu_mul_quantize
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights


@dataclass(frozen=True)
class W4A4Experts:
    """Both projections in the GEMM kernel's layout, and what quantizes the activations."""

    packed: PackedExperts
    """Its tensor scales hold the activations', too: one factor in an epilogue undoes both."""
    hidden_size: int
    x_scale: Tensor
    """fp32 0-d: decode scale of x, the largest of the layer's experts."""
    h_scale: Tensor
    """The same of h."""


class TritonW4A4Experts:
    """See :class:`moe_impl.experts.base.ExpertsBackend`. The GEMM's flags hold: rows are quantized one by one."""

    deterministic = TritonExperts.deterministic
    batch_invariant = TritonExperts.batch_invariant

    def __init__(self, pairs_per_token: float) -> None:
        self._gemms = TritonExperts(pairs_per_token)

    def prepare(self, weights: LayerWeights) -> W4A4Experts:
        x_scale, h_scale = weights.w13_input_scale.amax(), weights.w2_input_scale.amax()
        w13 = replace(weights.w13, global_scale=weights.w13.global_scale * x_scale)
        w2 = replace(weights.w2, global_scale=weights.w2.global_scale * h_scale)
        return W4A4Experts(PackedExperts(repack(w13), repack(w2)), w2.packed.shape[1], x_scale, h_scale)

    def quantize(self, prepared: W4A4Experts, rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
        return quantize_rows(rows_NH, prepared.x_scale, count)

    def permute(self, prepared: W4A4Experts, state: UbatchState) -> None:
        state.permuted_PH = expand_pairs(state.received_MB, state.pairs, prepared.hidden_size)
        state.received_MB = None

    def gemm1(self, prepared: W4A4Experts, state: UbatchState) -> None:
        self._gemms.gemm1(prepared.packed, state)

    def silu_mul(self, prepared: W4A4Experts, state: UbatchState) -> None:
        ends_L, expert_stride = state.pairs.ends_L, state.pairs.expert_stride
        state.h_PI = silu_mul_quantize(state.gate_up_PJ, ends_L, prepared.h_scale, expert_stride=expert_stride)
        state.gate_up_PJ = None

    def gemm2(self, prepared: W4A4Experts, state: UbatchState) -> None:
        self._gemms.gemm2(prepared.packed, state)
