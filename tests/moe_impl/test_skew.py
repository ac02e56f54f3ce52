"""Skewed routing as it is drawn: how often experts are chosen, which rank is played, what it knows of its peers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from moe_impl.inputs import Inputs, draw_inputs
from moe_impl.options import ChosenRank, SkewedRouting, Workload
from moe_impl.routing import select_experts
from moe_impl.shapes import ModelShape, Router
from moe_impl.skew import skewed_logits

CPU = torch.device("cpu")
ROUTER = Router("sigmoid", selection_bias=True, num_groups=4, top_groups=2, scaling_factor=2.5)
ZIPF, HOTSPOT = SkewedRouting("zipf", 1), SkewedRouting("hotspot", 0.3)


def workload(routing: SkewedRouting, top_k: int = 3, **more: Any) -> Workload:
    """16 experts on 4 ranks, two layers of 33 tokens."""
    return replace(Workload(ModelShape(16, 16, 16, top_k, ROUTER), 4, 2, 33, "bf16", routing=routing), **more)


def choices(work: Workload, rank: int, layer: int) -> tuple[Tensor, Tensor]:
    """What one rank's router makes of its own logits: ids and weights [T, K]."""
    assert isinstance(work.routing, SkewedRouting)
    logits_TE = skewed_logits(work, work.routing, CPU, rank)[layer]
    return select_experts(logits_TE, work.model.router.even(), work.model.top_k)


def counted(work: Workload, layer: int = 0) -> Tensor:
    """[E] tokens of rank 0 that chose each expert."""
    return torch.bincount(choices(work, 0, layer)[0].flatten(), minlength=work.model.num_experts)


@pytest.mark.parametrize("amount", [0.5, 1.0, 2.0])
def test_one_expert_a_token_is_chosen_in_proportion_to_its_zipf_weight(amount: float) -> None:
    tokens = 20000
    weights_E = torch.arange(1, 17).double() ** -amount
    expected_E = tokens * weights_E / weights_E.sum()
    found_E = counted(workload(SkewedRouting("zipf", amount), 1, tokens=tokens)).sort(descending=True).values
    squares = (found_E - expected_E).square() / expected_E
    assert float(squares.sum()) < 45, "chi square of 15 degrees of freedom: above that once in 10000 draws"


def test_two_experts_a_token_are_drawn_one_after_the_other_without_replacement() -> None:
    """P(i, j) = p_i p_j / (1 - p_i) + p_j p_i / (1 - p_j), over all pairs of four experts."""
    tokens = 40000
    work = replace(workload(ZIPF, tokens=tokens, layers=1), model=ModelShape(16, 16, 4, 2), ep_size=1)
    ids_TK, _ = choices(work, 0, 0)
    order = torch.bincount(ids_TK.flatten(), minlength=4).argsort(descending=True).tolist()
    p = {expert: 1 / place / (1 + 1 / 2 + 1 / 3 + 1 / 4) for place, expert in enumerate(order, 1)}
    for one in range(4):
        for other in range(one + 1, 4):
            share = p[one] * p[other] * (1 / (1 - p[one]) + 1 / (1 - p[other]))
            found = float(((ids_TK == one).any(1) & (ids_TK == other).any(1)).double().mean())
            assert found == pytest.approx(share, abs=4 * (share * (1 - share) / tokens) ** 0.5)


def test_a_share_of_the_tokens_has_the_hot_expert_and_the_rest_is_even() -> None:
    tokens, top_k = 20000, 3
    ids_TK, _ = choices(workload(HOTSPOT, tokens=tokens), 0, 0)
    counts_E = torch.bincount(ids_TK.flatten(), minlength=16)
    hot = int(counts_E.argmax())
    share = 0.3 + 0.7 * top_k / 16  # a token that was not told may choose it, too
    assert float(counts_E[hot]) / tokens == pytest.approx(share, abs=4 * (share * (1 - share) / tokens) ** 0.5)
    others_E = counts_E[torch.arange(16) != hot].double()
    expected = (top_k - share) * tokens / 15
    assert float(((others_E - expected).square() / expected).sum()) < 45
    with_hot = ids_TK[(ids_TK == hot).any(1)]
    others_E = torch.bincount(with_hot[with_hot != hot], minlength=16)[torch.arange(16) != hot].double()
    assert float(((others_E - others_E.mean()).square() / others_E.mean()).sum()) < 45


@pytest.mark.parametrize("top_k", [1, 3, 16])
def test_a_hotspot_of_all_tokens_is_in_every_one(top_k: int) -> None:
    assert int(counted(workload(SkewedRouting("hotspot", 1), top_k)).max()) == 33


@pytest.mark.parametrize("routing", [SkewedRouting("zipf", 3), SkewedRouting("hotspot", 0.9)])
def test_peers_share_the_popular_expert_and_layers_and_seeds_do_not(routing: SkewedRouting) -> None:
    def popular(rank: int, layer: int, seed: int = 0) -> int:
        ids_TK, _ = choices(workload(routing, 1, layers=6, tokens=200, seed=seed), rank, layer)
        return int(torch.bincount(ids_TK.flatten()).argmax())

    by_layer = [popular(0, layer) for layer in range(6)]
    assert by_layer == [popular(3, layer) for layer in range(6)]
    assert len(set(by_layer)) > 2
    assert by_layer != [popular(0, layer, seed=1) for layer in range(6)]


def test_peers_draw_their_own_choices_and_the_same_ones_again() -> None:
    for routing in (ZIPF, HOTSPOT):
        one, other, again = (choices(workload(routing), rank, 1) for rank in (0, 1, 0))
        assert not torch.equal(one[0], other[0])
        assert all(map(torch.equal, one, again))


@pytest.mark.parametrize("amount", [1.0, 8.0])
@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
def test_weights_are_those_of_the_routers_scoring_and_even_the_steepest_zipf_has_some(
    scoring: Any, amount: float
) -> None:
    model = ModelShape(16, 16, 512, 8, Router(scoring, renormalize=False))
    work = replace(workload(SkewedRouting("zipf", amount)), model=model)
    logits_TE = skewed_logits(work, work.routing, CPU, 0)[0]  # type: ignore[arg-type]
    ids_TK, weights_TK = choices(work, 0, 0)
    scores_TE = logits_TE.sigmoid() if scoring == "sigmoid" else logits_TE.softmax(-1)
    torch.testing.assert_close(weights_TK, scores_TE.gather(1, ids_TK.long()))
    assert (scores_TE > 0).all()
    assert torch.equal(ids_TK.long(), logits_TE.topk(8).indices.sort(-1).values)


def brute_force(work: Workload, rank: int, layer: int, token: int, peer: int) -> tuple[list[int], list[float]]:
    ids_TK, weights_TK = choices(work, peer, layer)
    ids, weights = ids_TK[token].tolist(), weights_TK[token].tolist()
    first = rank * work.local_experts
    return [i - first if first <= i < first + work.local_experts else -1 for i in ids], weights


@pytest.mark.parametrize("rank", [0, 2, "hottest", "mean"])
@pytest.mark.parametrize("kind", ["zipf", "hotspot"])
def test_the_tables_are_what_every_peer_chose_of_this_ranks_experts(kind: Any, rank: int | ChosenRank) -> None:
    work = workload(SkewedRouting(kind, 0.9, rank), tokens=9)
    peers = draw_inputs(work, CPU).peers
    assert peers is not None
    assert peers.rank == rank or isinstance(rank, str)
    assert len(peers.choices) == 2
    absent = 0
    for layer, found in enumerate(peers.choices):
        assert (found.experts_TRK.dtype, found.experts_TRK.shape) == (torch.int32, (9, 4, 3))
        for token in range(9):
            for peer in range(4):
                expected = brute_force(work, peers.rank, layer, token, peer)
                assert (found.experts_TRK[token, peer].tolist(), found.weights_TRK[token, peer].tolist()) == expected
                absent += max(expected[0]) < 0
    assert 0 < absent < 2 * 9 * 4, "some peers' tokens have no expert here"


def loads(work: Workload) -> tuple[list[int], list[int]]:
    """Rows and pairs that each rank receives over all layers, counted from what all ranks chose."""
    ids = [[choices(work, peer, layer)[0] for peer in range(4)] for layer in range(work.layers)]
    ranks = torch.cat([one // work.local_experts for layer in ids for one in layer])
    here = [ranks == rank for rank in range(4)]
    return [int(one.any(1).sum()) for one in here], [int(one.sum()) for one in here]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("routing", [ZIPF, HOTSPOT])
def test_the_hottest_has_the_most_pairs_and_the_mean_the_rows_nearest_to_the_mean(
    routing: SkewedRouting, seed: int
) -> None:
    work = workload(routing, seed=seed)
    rows, pairs = loads(work)
    hottest = draw_inputs(work, CPU).peers
    mean = draw_inputs(replace(work, routing=replace(routing, rank="mean")), CPU).peers
    assert hottest is not None
    assert mean is not None
    assert pairs[hottest.rank] == max(pairs) > sum(pairs) / 4
    assert abs(rows[mean.rank] - sum(rows) / 4) == min(abs(one - sum(rows) / 4) for one in rows)
    assert hottest.rank_rows == mean.rank_rows == tuple(one / 2 for one in rows)


def test_x_is_a_lone_ranks_and_the_logits_that_are_timed_are_those_of_the_rank_played() -> None:
    plain = draw_inputs(replace(workload(ZIPF), routing="uniform"), CPU)
    found: Inputs = draw_inputs(workload(SkewedRouting("zipf", 1, 2)), CPU)
    assert torch.equal(found.x_TH, plain.x_TH)
    assert torch.equal(found.logits_LTE, skewed_logits(workload(ZIPF), ZIPF, CPU, 2))
    assert (found.bias_E, found.router) == (None, plain.router)


def test_a_rank_that_is_a_process_draws_what_the_others_think_it_draws_and_no_tables() -> None:
    work = workload(HOTSPOT)
    for rank in (0, 3):
        own = draw_inputs(work, CPU, rank)
        assert own.peers is None
        assert own.peers_of(0, slice(None)) is None
        assert torch.equal(own.logits_LTE, skewed_logits(work, HOTSPOT, CPU, rank))
        assert torch.equal(own.x_TH, draw_inputs(replace(work, routing="uniform"), CPU, rank).x_TH)


def test_micro_batches_get_slices_of_the_tables() -> None:
    inputs = draw_inputs(workload(ZIPF), CPU)
    whole, part = (inputs.peers_of(1, tokens) for tokens in (slice(None), slice(5, 9)))
    assert whole is not None
    assert part is not None
    assert torch.equal(part.experts_TRK, whole.experts_TRK[5:9])
    assert torch.equal(part.weights_TRK, whole.weights_TRK[5:9])
    assert part.experts_TRK.is_contiguous()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("zipf", 0.0), "amount must be above 0 and at most 8 for zipf, got 0"),
        (("zipf", 8.1), "amount must be above 0 and at most 8 for zipf, got 8.1"),
        (("hotspot", 1.1), "amount must be above 0 and at most 1 for hotspot, got 1.1"),
        (("hotspot", float("nan")), "amount must be above 0 and at most 1 for hotspot, got nan"),
        (("zipf", 1.0, -1), "rank must not be negative, got -1"),
    ],
)
def test_an_amount_or_rank_that_cannot_be_is_refused(asked: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SkewedRouting(*asked)


def test_labels_have_neither_space_nor_comma() -> None:
    said = [str(routing) for routing in (ZIPF, SkewedRouting("hotspot", 0.25, 12), SkewedRouting("zipf", 0.5, "mean"))]
    assert said == ["zipf-1-hottest", "hotspot-0.25-rank12", "zipf-0.5-mean"]
