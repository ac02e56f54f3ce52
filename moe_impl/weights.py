"""Expert weights of one layer, drawn from a seed on the device that will use them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_impl.nvfp4 import NvFp4Tensor
from moe_impl.options import Workload

SEED_STRIDE = 1_000_003
"""Keeps the generators of layers, weights and inputs apart."""
ROUTED, SHARED = 16, 500_000
"""Generator of layer 0's routed and shared experts; a layer further on is one more."""


@dataclass(frozen=True)
class LayerWeights:
    """The L local experts of one layer; every rank holds an equal shard, W[e] = W[e mod L]."""

    w13: Tensor | NvFp4Tensor
    """Gate rows, then up rows: [L, 2I, H]; bf16 or NVFP4."""
    w2: Tensor | NvFp4Tensor
    """[L, H, I]."""
    shared: "LayerWeights | None" = None
    """The shared experts as one: their intermediate sizes side by side, L = 1."""


def generator(device: torch.device, seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each purpose, so that a new purpose changes no other's numbers."""
    return torch.Generator(device).manual_seed(seed * SEED_STRIDE + stream)


def _normal(shape: tuple[int, ...], scale: float, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device, dtype=torch.bfloat16) * scale


def draw_layer(workload: Workload, layer: int, device: torch.device) -> LayerWeights:
    """Normal weights that keep activations near unit size: std 1/sqrt(fan-in). NVFP4 by rule ``modelopt``."""
    I, L = workload.model.intermediate_size, workload.local_experts
    w13, w2 = _experts(workload, L, I, generator(device, workload.seed, ROUTED + layer))
    shared = None
    if workload.model.shared_experts:
        width = workload.model.shared_experts * I
        shared = LayerWeights(*_experts(workload, 1, width, generator(device, workload.seed, SHARED + layer)))
    return LayerWeights(w13, w2, shared)


def _experts(
    workload: Workload, experts: int, width: int, rng: torch.Generator
) -> tuple[Tensor | NvFp4Tensor, Tensor | NvFp4Tensor]:
    """w13 and w2 of some experts of intermediate size ``width``, in the workload's precision."""
    H = workload.model.hidden_size
    w13 = _normal((experts, 2 * width, H), H**-0.5, rng)
    w2 = _normal((experts, H, width), width**-0.5, rng)
    if workload.precision == "bf16":
        return w13, w2
    return NvFp4Tensor.from_dense(w13), NvFp4Tensor.from_dense(w2)
