"""What is drawn: reproducible, and balanced enough to stand for a model that balances its experts."""

from dataclasses import replace

import pytest
import torch

from moe_impl.inputs import draw_inputs
from moe_impl.options import Workload
from moe_impl.routing import select_experts
from moe_impl.shapes import PRESETS

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", [name for name, model in PRESETS.items() if model.router.selection_bias])
def test_a_drawn_selection_bias_changes_some_choices_and_leaves_experts_balanced(name: str) -> None:
    """Width is of no account here; a narrow model draws the same logits and bias."""
    model = replace(PRESETS[name], hidden_size=16, intermediate_size=16)
    inputs = draw_inputs(Workload(model, 1, layers=1, tokens=4096, precision="bf16"), CPU)
    logits, (experts, top_k) = inputs.logits_LTE[0], (model.num_experts, model.top_k)
    ids, _ = select_experts(logits, inputs.router, top_k, inputs.bias_E)
    without, _ = select_experts(logits, inputs.router, top_k, torch.zeros(experts))
    moved = float((ids != without).any(1).float().mean())
    assert moved > 0.02
    load = torch.bincount(ids.flatten(), minlength=experts) / (4096 * top_k / experts)
    assert float(load.std()) < 0.3, "of the mean load; ties and draws alone make 0.05 to 0.1"


def test_ranks_draw_their_own_tokens_and_logits_for_one_router() -> None:
    model = replace(PRESETS["deepseek-v3"], hidden_size=16, intermediate_size=16)
    work = Workload(model, 8, layers=2, tokens=5, precision="bf16")
    alone, *ranks = (draw_inputs(work, CPU, rank) for rank in (None, 0, 1, 2))
    assert torch.equal(alone.x_TH, ranks[0].x_TH)
    assert torch.equal(alone.logits_LTE, ranks[0].logits_LTE)
    for one, other in zip(ranks, ranks[1:] + ranks[:1], strict=True):
        assert not torch.equal(one.x_TH, other.x_TH)
        assert not torch.equal(one.logits_LTE, other.logits_LTE)
        assert torch.equal(one.bias_E, other.bias_E)  # type: ignore[arg-type]
        assert one.router == other.router
