"""Backend ``torch`` for W4A4: bf16 grouped matmuls of decoded weights and activations, tensor scales after them."""

from dataclasses import dataclass

from torch import Tensor

from moe_impl import rows as plain
from moe_impl.experts import nvfp4_rows
from moe_impl.experts.torch_backend import DenseExperts, TorchExperts, of_pairs
from moe_impl.rows import Pairs
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights


@dataclass(frozen=True)
class DenseW4A4Experts:
    """Decoded weights, and what quantizes the activations."""

    dense: DenseExperts
    gate_up_scale_L: Tensor
    """float32 [L]: what gemm1's outputs lack, the tensor scales of w13 and of x."""
    output_scale_L: Tensor
    """The same of gemm2's: those of w2 and of h."""
    x_scale: Tensor
    """fp32 0-d: decode scale of x, the largest of the layer's experts."""
    h_scale: Tensor
    """The same of h."""


def quantize(rows_NH: Tensor, scale: Tensor, count: Tensor | None) -> Tensor:
    """bf16 rows to those that travel, as ``kernels.quantize_rows`` documents it."""
    if not rows_NH.is_cuda:
        return nvfp4_rows.quantize_rows(rows_NH, scale, count)
    from moe_impl.kernels.quantize_rows import quantize_rows

    return quantize_rows(rows_NH, scale, count)


def expand(payload_MB: Tensor, pairs: Pairs, width: int) -> Tensor:
    """Received rows to bf16 pairs, as ``kernels.expand_pairs`` documents it."""
    if not payload_MB.is_cuda:
        return nvfp4_rows.expand_rows(plain.gather_pairs(payload_MB, pairs), width)
    from moe_impl.kernels.expand_pairs import expand_pairs

    return expand_pairs(payload_MB, pairs, width)


def silu_mul_quantize(gate_up: Tensor, ends_L: Tensor, scale: Tensor, in_scale_L: Tensor) -> Tensor:
    """gate_up to decoded h, as ``kernels.silu_mul_quantize`` documents it."""
    if not gate_up.is_cuda:
        return nvfp4_rows.silu_mul_quantize(gate_up, ends_L, scale, in_scale_L)
    from moe_impl.kernels import silu_mul_quantize as kernel

    return kernel.silu_mul_quantize(gate_up, ends_L, scale, in_scale_L)


def scale_pairs(outputs_PN: Tensor, ends_L: Tensor, scale_L: Tensor) -> None:
    """outputs[p] *= scale[e] in place, as ``kernels.scale_pairs`` documents it."""
    if not outputs_PN.is_cuda:
        outputs_PN[: int(ends_L[-1])] *= of_pairs(scale_L, ends_L)
        return
    from moe_impl.kernels import scale_pairs as kernel

    kernel.scale_pairs(outputs_PN, ends_L, scale_L)


class TorchW4A4Experts:
    """See :class:`moe_impl.experts.base.ExpertsBackend`; the flags are the grouped matmul's."""

    deterministic = TorchExperts.deterministic
    batch_invariant = TorchExperts.batch_invariant

    def __init__(self) -> None:
        self._gemms = TorchExperts()

    def prepare(self, weights: LayerWeights) -> DenseW4A4Experts:
        x_scale, h_scale = weights.w13_input_scale.amax(), weights.w2_input_scale.amax()
        return DenseW4A4Experts(
            self._gemms.prepare(weights),
            weights.w13.global_scale * x_scale,
            weights.w2.global_scale * h_scale,
            x_scale,
            h_scale,
        )

    def quantize(self, prepared: DenseW4A4Experts, rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
        return quantize(rows_NH, prepared.x_scale, count)

    def permute(self, prepared: DenseW4A4Experts, state: UbatchState) -> None:
        state.permuted_PH = expand(state.received_MB, state.pairs, prepared.dense.w13_LJH.shape[2])
        state.received_MB = None

    def gemm1(self, prepared: DenseW4A4Experts, state: UbatchState) -> None:
        self._gemms.gemm1(prepared.dense, state)

    def silu_mul(self, prepared: DenseW4A4Experts, state: UbatchState) -> None:
        ends_L = state.pairs.ends_L
        state.h_PI = silu_mul_quantize(state.gate_up_PJ, ends_L, prepared.h_scale, prepared.gate_up_scale_L)
        state.gate_up_PJ = None

    def gemm2(self, prepared: DenseW4A4Experts, state: UbatchState) -> None:
        self._gemms.gemm2(prepared.dense, state)
        scale_pairs(state.outputs_PH, state.pairs.ends_L, prepared.output_scale_L)
