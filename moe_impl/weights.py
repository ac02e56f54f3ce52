"""Expert weights of one layer, drawn from a seed on the device that will use them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_impl.nvfp4 import NvFp4Tensor
from moe_impl.options import Workload

SEED_STRIDE = 1_000_003
"""Keeps the generators of layers, weights and inputs apart."""


@dataclass(frozen=True)
class LayerWeights:
    """The L local experts of one layer; every rank holds an equal shard, W[e] = W[e mod L]."""

    w13: Tensor | NvFp4Tensor
    """Gate rows, then up rows: [L, 2I, H]; bf16 or NVFP4."""
    w2: Tensor | NvFp4Tensor
    """[L, H, I]."""


def generator(device: torch.device, seed: int, stream: int) -> torch.Generator:
    """A generator of its own for each purpose, so that a new purpose changes no other's numbers."""
    return torch.Generator(device).manual_seed(seed * SEED_STRIDE + stream)


def _normal(shape: tuple[int, ...], scale: float, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device, dtype=torch.bfloat16) * scale


def draw_layer(workload: Workload, layer: int, device: torch.device) -> LayerWeights:
    """Normal weights that keep activations near unit size: std 1/sqrt(fan-in). NVFP4 by rule ``modelopt``."""
    H, I, L = workload.model.hidden_size, workload.model.intermediate_size, workload.local_experts
    rng = generator(device, workload.seed, 16 + layer)
    w13 = _normal((L, 2 * I, H), H**-0.5, rng)
    w2 = _normal((L, H, I), I**-0.5, rng)
    if workload.precision == "bf16":
        return LayerWeights(w13, w2)
    return LayerWeights(NvFp4Tensor.from_dense(w13), NvFp4Tensor.from_dense(w2))
