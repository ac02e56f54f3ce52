"""Backend ``torch``: bf16 grouped matmul. NVFP4 weights are decoded once, so it moves bf16 weight bytes.

The decoded values e2m1 * e4m3 are exact in bf16; the per-tensor scales stay outside, as they do in a kernel that reads
NVFP4: gemm1's multiplies gate and up in fp32, gemm2's multiplies h before its one rounding.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_impl.experts.permute import GathersRows
from moe_impl.nvfp4 import NvFp4Tensor, decode_bf16
from moe_impl.state import UbatchState
from moe_impl.weights import LayerWeights


@dataclass(frozen=True)
class DenseExperts:
    """bf16 weights as the grouped matmul reads them, and the scales that are not in them."""

    w13_LJH: Tensor
    w2_LHI: Tensor
    scales: tuple[Tensor, Tensor] | None
    """float32 [L] each: of w13 and of w2, or None for plain bf16 weights."""


def _dense(weights: Tensor | NvFp4Tensor) -> Tensor:
    return decode_bf16(weights.packed, weights.scales) if isinstance(weights, NvFp4Tensor) else weights


def grouped_mm(x_PK: Tensor, weights_LNK: Tensor, ends_L: Tensor) -> Tensor:
    """out[p] = x[p] @ weights[e]^T for the pairs p of each expert e; rows past the last end are undefined."""
    if x_PK.shape[0] == 0:
        return x_PK.new_empty(0, weights_LNK.shape[1])
    if x_PK.is_cuda:
        return torch._grouped_mm(x_PK, weights_LNK.transpose(1, 2), offs=ends_L)
    out = x_PK.new_empty(x_PK.shape[0], weights_LNK.shape[1])
    start = 0
    for expert, end in enumerate(ends_L.tolist()):
        torch.mm(x_PK[start:end], weights_LNK[expert].t(), out=out[start:end])
        start = end
    return out


def of_pairs(scale_L: Tensor, ends_L: Tensor) -> Tensor:
    """Each expert's scale for each of its packed pairs, on a CPU: float32 [P, 1]."""
    expert_P = torch.searchsorted(ends_L, torch.arange(int(ends_L[-1]), dtype=torch.int32), right=True)
    return scale_L[expert_P, None]


def silu_mul(gate_up: Tensor, ends_L: Tensor, scales: tuple[Tensor, Tensor] | None) -> Tensor:
    """silu(s * gate) * (s * up) * o, as ``kernels.silu_mul`` documents it."""
    if not gate_up.is_cuda:
        return silu_mul_plain(gate_up, ends_L, scales)
    from moe_impl.kernels import silu_mul as kernel

    return kernel.silu_mul(gate_up, ends_L, scales)


def silu_mul_plain(gate_up: Tensor, ends_L: Tensor, scales: tuple[Tensor, Tensor] | None) -> Tensor:
    """The CPU twin of ``kernels.silu_mul``: fp32 inside, one rounding."""
    used = int(ends_L[-1])
    h = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
    gate, up = gate_up[:used].float().chunk(2, -1)
    if scales is not None:
        in_scale, out_scale = (of_pairs(scale, ends_L) for scale in scales)
        gate, up = gate * in_scale, up * (in_scale * out_scale)
    h[:used] = (F.silu(gate) * up).to(h.dtype)
    return h


class TorchExperts(GathersRows):
    """See :class:`moe_impl.experts.base.ExpertsBackend`."""

    deterministic = True
    batch_invariant = False  # the grouped matmul may choose its tiles by the number of rows

    def prepare(self, weights: LayerWeights) -> DenseExperts:
        scales = None
        if isinstance(weights.w13, NvFp4Tensor) and isinstance(weights.w2, NvFp4Tensor):
            scales = (weights.w13.global_scale, weights.w2.global_scale)
        return DenseExperts(_dense(weights.w13), _dense(weights.w2), scales)

    def gemm1(self, prepared: DenseExperts, state: UbatchState) -> None:
        state.gate_up_PJ = grouped_mm(state.permuted_PH, prepared.w13_LJH, state.pairs.ends_L)
        state.permuted_PH = None

    def silu_mul(self, prepared: DenseExperts, state: UbatchState) -> None:
        state.h_PI = silu_mul(state.gate_up_PJ, state.pairs.ends_L, prepared.scales)
        state.gate_up_PJ = None

    def gemm2(self, prepared: DenseExperts, state: UbatchState) -> None:
        state.outputs_PH = grouped_mm(state.h_PI, prepared.w2_LHI, state.pairs.ends_L)
        state.h_PI = None
