"""Expert weights of one layer, drawn from a seed on the device that will use them."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from moe_impl.fp8 import Fp8Tensor
from moe_impl.nvfp4 import E2M1_MAX, E4M3_MAX, NvFp4Tensor
from moe_impl.options import Workload

SEED_STRIDE = 1_000_003
"""Keeps the generators of layers, weights and inputs apart."""
ROUTED, SHARED = 16, 500_000
"""Generator of layer 0's routed and shared experts; a layer further on is one more."""
ROUTED_SCALES, SHARED_SCALES = 250_000, 750_000
"""The same of their input scales."""
X_AMAX, H_AMAX = 32.0, 128.0
"""Calibrated largest magnitudes of x and of h = silu(gate) * up, where x has unit size: far above what is drawn, since
nothing may saturate, and e4m3 block scales have the range to make that free."""
AMAX_SPREAD = 0.25
"""Experts are calibrated on different tokens: their largest magnitudes lie up to this share above those."""

ExpertWeights: TypeAlias = Tensor | Fp8Tensor | NvFp4Tensor


@dataclass(frozen=True)
class LayerWeights:
    """The L local experts of one layer; every rank holds an equal shard, W[e] = W[e mod L]."""

    w13: ExpertWeights
    """Gate rows, then up rows: [L, 2I, H]; bf16, FP8 or NVFP4."""
    w2: ExpertWeights
    """[L, H, I]."""
    shared: "LayerWeights | None" = None
    """The shared experts as one: their intermediate sizes side by side, L = 1."""
    w13_input_scale: Tensor | None = None
    """float32 [L], precision nvfp4 only: static decode scales of x, as a checkpoint holds them. Rows are quantized
    before their experts are known, so all experts read them under the largest (FastDeploy's choice)."""
    w2_input_scale: Tensor | None = None
    """The same of h; the largest serves all experts here, too."""


def generator(device: torch.device, seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each purpose, so that a new purpose changes no other's numbers."""
    return torch.Generator(device).manual_seed(seed * SEED_STRIDE + stream)


def normal(shape: tuple[int, ...], scale: float, rng: torch.Generator) -> Tensor:
    """bf16 of this standard deviation."""
    return torch.randn(shape, generator=rng, device=rng.device, dtype=torch.bfloat16).mul_(scale)


def draw_layer(workload: Workload, layer: int, device: torch.device) -> LayerWeights:
    """Normal weights that keep activations near unit size: std 1/sqrt(fan-in). NVFP4 by rule ``modelopt``."""
    seed = workload.seed
    I, L = workload.model.intermediate_size, workload.local_experts
    w13, w2 = _experts(workload, L, I, generator(device, seed, ROUTED + layer))
    shared = None
    if workload.model.shared_experts:
        width = workload.model.shared_experts * I
        experts = _experts(workload, 1, width, generator(device, seed, SHARED + layer))
        shared = LayerWeights(*experts, None, *_input_scales(workload, 1, layer, device, SHARED_SCALES))
    return LayerWeights(w13, w2, shared, *_input_scales(workload, L, layer, device, ROUTED_SCALES))


def _input_scales(
    workload: Workload, experts: int, layer: int, device: torch.device, stream: int
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Decode scales of x and h that map a calibrated largest magnitude to 6 * 448.

    x of layer l is the sum of l + 1 (with an attention stand-in: of 2 l + 2) about independent vectors of unit rms, and
    h grows as its square.
    """
    if workload.precision != "nvfp4":
        return None, None
    factor_2L = torch.rand(2, experts, generator=generator(device, workload.seed, stream + layer), device=device)
    factor_2L = (1 + AMAX_SPREAD * factor_2L) / (E2M1_MAX * E4M3_MAX)
    return factor_2L[0] * X_AMAX * (layer + 1) ** 0.5, factor_2L[1] * H_AMAX * (layer + 1)


def _experts(workload: Workload, experts: int, width: int, rng: torch.Generator) -> tuple[ExpertWeights, ExpertWeights]:
    """w13 and w2 of some experts of intermediate size ``width``, in the workload's precision."""
    H = workload.model.hidden_size
    w13 = normal((experts, 2 * width, H), H**-0.5, rng)
    w2 = normal((experts, H, width), width**-0.5, rng)
    if workload.precision == "bf16":
        return w13, w2
    if workload.precision == "fp8":
        return Fp8Tensor.from_dense(w13), Fp8Tensor.from_dense(w2)
    return NvFp4Tensor.from_dense(w13), NvFp4Tensor.from_dense(w2)
