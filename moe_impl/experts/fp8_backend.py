"""Backend ``torch`` for FP8: ``torch._scaled_grouped_mm``, which scales by row and by output channel in its epilogue.

On a GPU that is a CUTLASS kernel for Hopper alone (torch lets Blackwell pass, and it traps there: pytorch#187095; hence
``support``). Groups may be empty, no row past the last end is written, and K and N must be multiples of 16. Its tiles
depend on P' / L, which is the worst case and not the rows that came (aten/src/ATen/native/cuda/ScaledGroupMM.cu).
"""

import torch
from torch import Tensor

from moe_impl.experts import fp8_rows
from moe_impl.fp8 import Fp8Tensor
from moe_impl.rows import Pairs
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights

FAST_ACCUMULATION = True
"""Sums stay in the tensor cores' registers of about 22 bits over the whole of K, as in vLLM's CUTLASS kernel for FP8
MoE: what is run today, and without it torch falls back to smaller tiles. DeepGEMM adds to fp32 every 128 values."""


def quantize(rows_NH: Tensor, count: Tensor | None) -> Tensor:
    """bf16 rows to those that travel, as ``kernels.quantize_fp8`` documents it."""
    if not rows_NH.is_cuda:
        return fp8_rows.quantize_rows(rows_NH, count)
    from moe_impl.kernels.quantize_fp8 import quantize_fp8

    return quantize_fp8(rows_NH, count)


def gather(payload_MB: Tensor, pairs: Pairs, width: int) -> tuple[Tensor, Tensor]:
    """Received rows to codes and scales of pairs, as ``kernels.gather_fp8`` documents it."""
    if not payload_MB.is_cuda:
        return fp8_rows.gather_rows(payload_MB, pairs, width)
    from moe_impl.kernels.gather_fp8 import gather_fp8

    return gather_fp8(payload_MB, pairs, width)


def silu_mul(gate_up: Tensor, ends_L: Tensor) -> tuple[Tensor, Tensor]:
    """gate_up to codes and scales of h, as ``kernels.silu_mul_fp8`` documents it."""
    if not gate_up.is_cuda:
        return fp8_rows.silu_mul(gate_up, ends_L)
    from moe_impl.kernels.silu_mul_fp8 import silu_mul_fp8

    return silu_mul_fp8(gate_up, ends_L)


def scaled_grouped_mm(codes_PK: Tensor, scale_P: Tensor, weights: Fp8Tensor, ends_L: Tensor) -> Tensor:
    """out[p] = scale[p] * scales[e] * (codes[p] @ weights[e]^T) for the pairs p of each expert e: bf16 [P', N].

    Sums and scales in fp32, rounded once; rows past the last end are undefined.
    """
    pairs = codes_PK.shape[0]
    if pairs and codes_PK.is_cuda:
        return torch._scaled_grouped_mm(
            codes_PK,
            weights.codes.transpose(1, 2),
            scale_P,
            weights.scales,
            offs=ends_L,
            out_dtype=torch.bfloat16,
            use_fast_accum=FAST_ACCUMULATION,
        )
    out_PN = torch.empty(pairs, weights.codes.shape[1], dtype=torch.bfloat16, device=codes_PK.device)
    if pairs == 0:
        return out_PN
    start = 0
    for expert, end in enumerate(ends_L.tolist()):
        sums_PN = codes_PK[start:end].float() @ weights.codes[expert].float().t()
        out_PN[start:end] = sums_PN * scale_P[start:end, None] * weights.scales[expert]
        start = end
    return out_PN


class TorchFp8Experts:
    """See :class:`moe_impl.experts.base.ExpertsBackend`."""

    deterministic = True
    batch_invariant = False  # the grouped matmul chooses its tiles by the number of rows

    def prepare(self, weights: LayerWeights) -> LayerWeights:
        return weights

    def quantize(self, prepared: LayerWeights, rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
        return quantize(rows_NH, count)

    def permute(self, prepared: LayerWeights, state: UbatchState) -> None:
        width = prepared.w2.codes.shape[1]
        state.permuted_PH, state.permuted_scale_P = gather(state.received_MB, state.pairs, width)
        state.received_MB = None

    def gemm1(self, prepared: LayerWeights, state: UbatchState) -> None:
        ends_L = state.pairs.ends_L
        state.gate_up_PJ = scaled_grouped_mm(state.permuted_PH, state.permuted_scale_P, prepared.w13, ends_L)
        state.permuted_PH = state.permuted_scale_P = None

    def silu_mul(self, prepared: LayerWeights, state: UbatchState) -> None:
        state.h_PI, state.h_scale_P = silu_mul(state.gate_up_PJ, state.pairs.ends_L)
        state.gate_up_PJ = None

    def gemm2(self, prepared: LayerWeights, state: UbatchState) -> None:
        state.outputs_PH = scaled_grouped_mm(state.h_PI, state.h_scale_P, prepared.w2, state.pairs.ends_L)
        state.h_PI = state.h_scale_P = None
