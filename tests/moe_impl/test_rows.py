"""The bookkeeping of rows against brute-force loops, and against R ranks that really exchange rows."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from moe_impl import costs, rows
from moe_impl.options import Workload, WorstCaseLayout
from moe_impl.shapes import ModelShape
from moe_impl.transport.cpu_rows import LocalCpu

H = 32
SHAPES = [
    (1, 1, 1, 1),
    (5, 2, 1, 2),
    (7, 6, 3, 3),
    (9, 8, 2, 4),
    (17, 16, 4, 4),
    (4, 8, 8, 2),
    (6, 12, 3, 12),
    (9, 32, 5, 16),
    (5, 34, 4, 34),
]
"""(T, E, K, R)"""
NAN = float("nan")


def draw(tokens: int, experts: int, top_k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Distinct ascending ids and positive weights."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.rand(tokens, experts, generator=rng).argsort(1)[:, :top_k].sort(1).values
    return ids.int(), torch.rand(tokens, top_k, generator=rng) + 0.1


def expected_rows(ids: Tensor, weights: Tensor, experts: int, ranks: int) -> list[tuple[int, int, dict[int, float]]]:
    """(rank, token, local expert -> weight) of every received row, by rank, then token."""
    local = experts // ranks
    found = []
    for rank in range(ranks):
        for token, (chosen, how_much) in enumerate(zip(ids.tolist(), weights.tolist(), strict=True)):
            here = {e - rank * local: w for e, w in zip(chosen, how_much, strict=True) if e // local == rank}
            if here:
                found.append((rank, token, here))
    return found


def held(plan: rows.SentRows, row: int) -> dict[int, float]:
    """local expert -> weight of one planned row."""
    slots = zip(plan.experts_MK[row].tolist(), plan.weights_MK[row].tolist(), strict=True)
    return {expert: weight for expert, weight in slots if expert >= 0}


def spoiled(plan: rows.SentRows) -> rows.SentRows:
    """The same plan with rubbish in everything that is undefined."""
    used = int(plan.num_rows)
    plan.token_M[used:] = 2**30
    plan.experts_MK[used:] = 0
    plan.weights_MK[used:] = NAN
    plan.weights_MK[plan.experts_MK < 0] = NAN
    return plan


@pytest.mark.parametrize(("tokens", "experts", "top_k", "ranks"), SHAPES)
def test_one_row_goes_to_each_distinct_rank_of_a_token_by_rank_then_token(
    tokens: int, experts: int, top_k: int, ranks: int
) -> None:
    ids, weights = draw(tokens, experts, top_k)
    plan = rows.plan_rows(ids, weights, experts, ranks)
    expected = expected_rows(ids, weights, experts, ranks)
    assert plan.capacity == ranks * tokens
    assert int(plan.num_rows) == len(expected) <= tokens * min(top_k, ranks)
    row_TR = torch.full((tokens, ranks), -1, dtype=torch.int32)
    for row, (rank, token, here) in enumerate(expected):
        row_TR[token, rank] = row
        assert (int(plan.token_M[row]), held(plan, row)) == (token, here)
    assert torch.equal(plan.row_TR, row_TR)
    assert int(plan.num_node_rows) == len({(rank // 8, token) for rank, token, _ in expected})


def test_rows_with_more_room_lie_where_they_lie_with_just_enough() -> None:
    ids, weights = draw(7, 6, 3)
    plan, roomy = (rows.plan_rows(ids, weights, 6, 3, capacity) for capacity in (None, 40))
    used = int(plan.num_rows)
    assert (plan.capacity, roomy.capacity, len(roomy.token_M), len(roomy.weights_MK)) == (21, 40, 40, 40)
    assert torch.equal(plan.row_TR, roomy.row_TR)
    for name in ("token_M", "experts_MK", "weights_MK"):
        assert torch.equal(getattr(plan, name)[:used], getattr(roomy, name)[:used])
    assert (int(roomy.num_rows), int(roomy.num_pairs)) == (used, int(plan.num_pairs))


@pytest.mark.parametrize(("tokens", "experts", "top_k", "ranks"), SHAPES)
def test_rank_0_receives_from_rotated_clones_what_the_plan_says(
    tokens: int, experts: int, top_k: int, ranks: int
) -> None:
    """Peer p is this rank with ids rotated by p * L: its token t comes to rank 0 for the experts it has there."""
    ids, weights = draw(tokens, experts, top_k)
    local = experts // ranks
    received = []
    for peer in range(ranks):
        rotated = (ids + peer * local) % experts
        for token in range(tokens):
            pairs = zip(rotated[token].tolist(), weights[token].tolist(), strict=True)
            here = {expert: weight for expert, weight in pairs if expert < local}
            if here:
                received.append((token, sorted(here.items())))
    plan = rows.plan_rows(ids, weights, experts, ranks)
    planned = [(int(plan.token_M[row]), sorted(held(plan, row).items())) for row in range(int(plan.num_rows))]
    assert sorted(planned) == sorted(received)


@pytest.mark.parametrize("layout", get_args(WorstCaseLayout))
@pytest.mark.parametrize(("tokens", "experts", "top_k", "ranks"), SHAPES)
def test_pairs_are_sorted_by_expert_then_row(
    tokens: int, experts: int, top_k: int, ranks: int, layout: WorstCaseLayout
) -> None:
    ids, weights = draw(tokens, experts, top_k)
    local, room = experts // ranks, tokens + 2
    plan = spoiled(rows.plan_rows(ids, weights, experts, ranks, ranks * room))
    pairs = rows.plan_pairs(plan, local, layout)
    found = expected_rows(ids, weights, experts, ranks)
    rows_of = [[row for row, (_, _, here) in enumerate(found) if expert in here] for expert in range(local)]
    assert sum(map(len, rows_of)) == tokens * top_k
    model = ModelShape(16, 16, experts, top_k)
    capacity = costs.worst_case(Workload(model, ranks, layers=1, tokens=tokens, precision="bf16"), room, layout)
    assert (plan.capacity, pairs.row_P.shape[0]) == (capacity.rows, capacity.pairs), "what bench plan counts on"
    packed = [sum(map(len, rows_of[:expert])) for expert in range(local)]
    starts = packed if layout == "packed" else [expert * ranks * room for expert in range(local)]
    ends = [start + len(mine) for start, mine in zip(starts, rows_of, strict=True)]
    assert (pairs.starts.tolist(), pairs.ends_L.tolist()) == (starts, ends)
    for start, end, mine in zip(starts, ends, rows_of, strict=True):
        assert pairs.row_P[start:end].tolist() == mine
    for row in range(int(plan.num_rows)):
        for slot, expert in enumerate(plan.experts_MK[row].tolist()):
            where = starts[expert] + rows_of[expert].index(row) if expert >= 0 else -1
            assert int(pairs.pair_MK[row, slot]) == where


def travel(plan: rows.SentRows, x: Tensor, local: int, expert: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Partial sums, y and next x after dispatch, permute, ``expert(rows, ends)``, reduce, combine and merge."""
    pairs = rows.plan_pairs(plan, local)
    received = torch.full((plan.capacity, H), NAN, dtype=torch.bfloat16)
    LocalCpu().dispatch(x, plan, received)
    outputs = expert(rows.gather_pairs(received, pairs), pairs.ends_L)
    outputs[int(pairs.ends_L[-1]) :] = NAN
    partial, returned = torch.full_like(received, NAN), torch.full_like(received, NAN)
    rows.reduce_rows(outputs, pairs, plan, partial)
    LocalCpu().combine(partial, plan, returned)
    return partial, *rows.merge_rows(x, returned, plan)


@pytest.mark.parametrize(("tokens", "experts", "top_k", "ranks"), SHAPES)
def test_identity_experts_give_x_back_times_the_sum_of_its_weights(
    tokens: int, experts: int, top_k: int, ranks: int
) -> None:
    ids, weights = draw(tokens, experts, top_k)
    plan = spoiled(rows.plan_rows(ids, weights, experts, ranks))
    x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(1)).bfloat16()
    _, y, following = travel(plan, x, experts // ranks, lambda permuted, ends: permuted)
    # A rounding to bf16 a rank and one in the end, each half a step of 2^-8.
    torch.testing.assert_close(y.float(), x.float() * weights.sum(1, keepdim=True), rtol=(ranks + 1) * 2**-9, atol=1e-6)
    unit = y.float() / y.float().square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(following.float(), x.float() + unit, rtol=2**-8, atol=1e-6)


def test_each_expert_sees_its_own_rows_and_sums_round_as_the_design_says() -> None:
    """fp32(weight) * bf16(output) in ascending expert id, rounded once; the total over ranks likewise."""
    tokens, experts, top_k, ranks = 13, 12, 5, 3
    ids, weights = draw(tokens, experts, top_k)
    plan = spoiled(rows.plan_rows(ids, weights, experts, ranks))
    x = torch.randn(tokens, H, generator=torch.Generator().manual_seed(2)).bfloat16()

    def scaled(permuted: Tensor, ends: Tensor) -> Tensor:
        start = 0
        for expert, end in enumerate(ends.tolist()):
            permuted[start:end] *= expert + 1.5
            start = end
        return permuted

    partial, y, _ = travel(plan, x, experts // ranks, scaled)
    for token in range(tokens):
        total = torch.zeros(H)
        for rank in range(ranks):
            row = int(plan.row_TR[token, rank])
            if row >= 0:
                sum_here = torch.zeros(H)
                for expert, weight in sorted(held(plan, row).items()):
                    sum_here = sum_here + torch.tensor(weight) * (x[token] * (expert + 1.5)).float()
                assert torch.equal(partial[row], sum_here.bfloat16())
                total = total + sum_here.bfloat16().float()
        assert torch.equal(y[token], total.bfloat16())


def test_a_token_whose_output_is_zero_keeps_its_x() -> None:
    ids, weights = draw(3, 4, 2)
    plan = rows.plan_rows(ids, weights, 4, 2)
    x = torch.randn(3, H).bfloat16()
    y, following = rows.merge_rows(x, torch.zeros(plan.capacity, H, dtype=torch.bfloat16), plan)
    assert not y.any()
    assert torch.equal(following, x)
