import math

import pytest
import torch
from torch import Tensor

from moe_impl.routing import select_experts
from moe_impl.shapes import PRESETS, Router

DEEPSEEK = PRESETS["deepseek-v3"].router
ROUTERS = {
    "softmax": Router(),
    "softmax, not renormalised": Router(renormalize=False, scaling_factor=3.0),
    "softmax, bias": Router(selection_bias=True),
    "sigmoid, bias": Router(scoring="sigmoid", selection_bias=True),
    "softmax, groups": Router(num_groups=4, top_groups=2),
    "groups of one expert": Router(scoring="sigmoid", num_groups=16, top_groups=5),
    "deepseek-v3": DEEPSEEK,
}


def by_hand(logits: list[float], router: Router, top_k: int, bias: list[float]) -> tuple[list[int], list[float]]:
    """One token with loops and Python floats."""
    num_experts = len(logits)
    if router.scoring == "softmax":
        powers = [math.exp(logit - max(logits)) for logit in logits]
        scores = [power / sum(powers) for power in powers]
    else:
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    biased = [score + extra for score, extra in zip(scores, bias, strict=True)]
    size = num_experts // router.num_groups
    group_scores = [sum(sorted(biased[g * size : (g + 1) * size])[-2:]) for g in range(router.num_groups)]
    best_groups = sorted(range(router.num_groups), key=lambda g: -group_scores[g])[: router.top_groups]
    allowed = [e for e in range(num_experts) if e // size in best_groups]
    chosen = sorted(sorted(allowed, key=lambda e: -biased[e])[:top_k])
    weights = [scores[e] for e in chosen]
    if router.renormalize:
        weights = [weight / sum(scores[e] for e in chosen) for weight in weights]
    return chosen, [weight * router.scaling_factor for weight in weights]


def draw(router: Router, tokens: int, experts: int) -> tuple[Tensor, Tensor | None]:
    rng = torch.Generator().manual_seed(tokens)
    logits = torch.randn(tokens, experts, generator=rng)
    spread = 0.2 if router.scoring == "sigmoid" else 1 / experts
    return logits, spread * torch.randn(experts, generator=rng) if router.selection_bias else None


@pytest.mark.parametrize("name", ROUTERS)
def test_select_experts_agrees_with_loops(name: str) -> None:
    router, top_k = ROUTERS[name], 4
    logits, bias = draw(router, 40, 16)
    ids, weights = select_experts(logits, router, top_k, bias)
    assert (ids.dtype, weights.dtype) == (torch.int32, torch.float32)
    for token in range(40):
        expected_ids, expected_weights = by_hand(
            logits[token].tolist(), router, top_k, [0.0] * 16 if bias is None else bias.tolist()
        )
        assert ids[token].tolist() == expected_ids
        assert weights[token].tolist() == pytest.approx(expected_weights, rel=1e-6)


def test_a_bias_on_softmax_scores_chooses_but_does_not_weigh() -> None:
    """ERNIE 4.5: expert 2 is chosen for its bias, and weighs what its own score is worth among the chosen."""
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    ids, weights = select_experts(logits, PRESETS["ernie-4.5-21b-a3b"].router, 2, torch.tensor([0.0, 0.0, 0.5, 0.0]))
    assert ids.tolist() == [[0, 2]]
    assert weights[0].tolist() == pytest.approx([math.e**2 / (math.e**2 + 1), 1 / (math.e**2 + 1)])


def test_softmax_over_the_chosen_logits_is_the_renormalised_softmax_over_all() -> None:
    """gpt-oss and Mixtral route so."""
    logits, _ = draw(Router(), 16, 32)
    ids, weights = select_experts(logits, PRESETS["gpt-oss-20b"].router, 4)
    torch.testing.assert_close(weights, torch.softmax(logits.gather(1, ids.long()), -1))


def test_bias_and_groups_change_who_is_chosen() -> None:
    """Or the comparison with loops would prove nothing about them."""
    logits, bias = draw(DEEPSEEK, 64, 256)
    plain = Router(scoring="sigmoid")
    chosen = [
        select_experts(logits, Router(scoring="sigmoid", selection_bias=True), 8, bias)[0],
        select_experts(logits, Router(scoring="sigmoid", num_groups=8, top_groups=4), 8)[0],
    ]
    unrestricted = select_experts(logits, plain, 8)[0]
    assert all((ids != unrestricted).any() for ids in chosen)


@pytest.mark.parametrize(("name", "experts"), [("softmax", 19), ("sigmoid, bias", 19), ("deepseek-v3", 256)])
def test_a_slice_of_tokens_routes_as_the_batch_does(name: str, experts: int) -> None:
    router = ROUTERS[name]
    logits, bias = draw(router, 101, experts)
    ids, weights = select_experts(logits, router, 8, bias)
    for begin, end in [(0, 51), (51, 101), *((token, token + 1) for token in range(101))]:
        slice_ids, slice_weights = select_experts(logits[begin:end], router, 8, bias)
        assert torch.equal(slice_ids, ids[begin:end])
        assert torch.equal(slice_weights, weights[begin:end])


def test_ties_go_to_the_lower_expert() -> None:
    ids, weights = select_experts(torch.zeros(3, 32), Router(), 4)
    assert ids.tolist() == [[0, 1, 2, 3]] * 3
    assert torch.equal(weights, torch.full((3, 4), 0.25))
    ids, _ = select_experts(torch.zeros(3, 32), Router(num_groups=4, top_groups=2), 16)
    assert ids.tolist() == [list(range(16))] * 3


def test_renormalised_weights_sum_to_the_scaling_factor() -> None:
    logits, bias = draw(DEEPSEEK, 32, 256)
    _, weights = select_experts(logits, DEEPSEEK, 8, bias)
    torch.testing.assert_close(weights.sum(-1), torch.full((32,), 2.5))


def test_float64_logits_give_float64_weights() -> None:
    logits, _ = draw(Router(), 8, 16)
    _, weights = select_experts(logits.double(), Router(), 2)
    assert weights.dtype == torch.float64
    assert float((weights.sum(-1) - 1).abs().max()) < 1e-15


@pytest.mark.parametrize(
    ("logits", "router", "top_k", "bias", "message"),
    [
        (torch.zeros(2, 8).bfloat16(), Router(), 2, None, "bfloat16"),
        (torch.zeros(8), Router(), 2, None, r"\[T, E\]"),
        (torch.zeros(2, 8), Router(num_groups=3), 2, None, "3 equal groups"),
        (torch.zeros(2, 8), Router(num_groups=4, top_groups=1), 3, None, r"1\.\.2, got 3"),
        (torch.zeros(2, 8), Router(selection_bias=True), 2, None, "none was given"),
        (torch.zeros(2, 8), Router(), 2, torch.zeros(8), "one was given"),
    ],
)
def test_select_experts_refuses_what_it_cannot_mean(
    logits: Tensor, router: Router, top_k: int, bias: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        select_experts(logits, router, top_k, bias)
