"""A workload's inputs: activations and router logits, drawn from the seed before anything is timed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_impl.options import SkewedRouting, Workload
from moe_impl.rows import PeerChoices
from moe_impl.shapes import Router
from moe_impl.skew import Peers, draw_peers, own_generators, skewed_logits
from moe_impl.weights import generator

BIAS_STD = 0.01
"""Of the selection bias on sigmoid scores: enough to matter to ties, small enough to leave random logits balanced."""
SOFTMAX_BIAS_STD = 0.065
"""The same, times 1 / E, on softmax scores: 5 % of the scores' own spread, as 0.01 is of sigmoid scores."""


@dataclass(frozen=True)
class Inputs:
    """What enters the first layer, and what routes in each."""

    x_TH: Tensor
    """bf16 [T, H], standard normal."""
    logits_LTE: Tensor
    """float32 [layers, T, E]: drawn, not computed from x, so that off and on route alike."""
    bias_E: Tensor | None
    """float32 [E] where the router selects with a bias."""
    router: Router
    peers: Peers | None = None
    """With skewed routing, unless ranks are processes: what peers chose, and the rank that this GPU plays."""

    def peers_of(self, layer: int, tokens: slice) -> PeerChoices | None:
        """What peers chose in one layer for some of the tokens; None where they are rotated clones, or processes."""
        return None if self.peers is None else self.peers.choices[layer].of(tokens)


def draw_inputs(workload: Workload, device: torch.device, rank: int | None = None) -> Inputs:
    """Routing ``model`` uses the model's own router; all others drop groups and bias: with ``uniform`` K distinct
    experts, alike; with a skewed routing some are likelier (:mod:`moe_impl.skew`).

    Args:
        rank: of a group whose ranks are processes (link ``collective``): each has its own tokens and logits, all have
            one router and bias. None: this process stands for the group; its numbers are rank 0's, but with a skewed
            routing logits are those of the rank that it plays.
    """
    of_x, of_logits = own_generators(rank)
    model, routing = workload.model, workload.routing
    rng = generator(device, workload.seed, of_x)
    x_TH = torch.randn(workload.tokens, model.hidden_size, generator=rng, device=device, dtype=torch.bfloat16)
    router = model.router if routing == "model" else model.router.even()
    if isinstance(routing, SkewedRouting):
        peers = draw_peers(workload, routing, router, device) if rank is None else None
        played = rank if peers is None else peers.rank
        return Inputs(x_TH, skewed_logits(workload, routing, device, played), None, router, peers)
    rng = generator(device, workload.seed, of_logits)
    logits = torch.randn(workload.layers, workload.tokens, model.num_experts, generator=rng, device=device)
    bias_E = None
    if router.selection_bias:
        rng = generator(device, workload.seed, 2)
        std = BIAS_STD if router.scoring == "sigmoid" else SOFTMAX_BIAS_STD / model.num_experts
        bias_E = std * torch.randn(model.num_experts, generator=rng, device=device)
    return Inputs(x_TH, logits, bias_E, router)
