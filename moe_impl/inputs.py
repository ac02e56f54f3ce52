"""A workload's inputs: activations and router logits, drawn from the seed before anything is timed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_impl.options import Workload
from moe_impl.shapes import Router
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


def draw_inputs(workload: Workload, device: torch.device) -> Inputs:
    """Routing ``model`` uses the model's own router; ``uniform`` drops groups and bias: K distinct experts, alike."""
    model = workload.model
    rng = generator(device, workload.seed, 0)
    x_TH = torch.randn(workload.tokens, model.hidden_size, generator=rng, device=device, dtype=torch.bfloat16)
    rng = generator(device, workload.seed, 1)
    logits = torch.randn(workload.layers, workload.tokens, model.num_experts, generator=rng, device=device)
    router = model.router
    if workload.routing == "uniform":
        router = Router(router.scoring, renormalize=router.renormalize, scaling_factor=router.scaling_factor)
    bias_E = None
    if router.selection_bias:
        rng = generator(device, workload.seed, 2)
        std = BIAS_STD if router.scoring == "sigmoid" else SOFTMAX_BIAS_STD / model.num_experts
        bias_E = std * torch.randn(model.num_experts, generator=rng, device=device)
    return Inputs(x_TH, logits, bias_E, router)
