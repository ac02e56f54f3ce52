"""The row kernels in Triton's interpreter against their plain torch twins. Uninitialised memory is NaN here."""

from typing import get_args

import interpreted
import pytest
import torch
from drawn import normal
from interpreted import bf16_steps_apart

from moe_impl import rows
from moe_impl.experts.torch_backend import silu_mul_plain
from moe_impl.layer import route_plain
from moe_impl.options import WorstCaseLayout
from moe_impl.shapes import Router

pytestmark = [interpreted.WHERE, pytest.mark.usefixtures("uninitialised_memory_is_nan")]

GROUPED = Router("sigmoid", selection_bias=True, num_groups=4, top_groups=2, scaling_factor=2.5)


def planned(tokens: int, experts: int, top_k: int, ranks: int) -> rows.SentRows:
    return route_plain(normal(tokens, experts), Router(), top_k, None, experts, ranks)


@pytest.mark.parametrize(
    ("tokens", "experts", "top_k", "ranks", "router"),
    [
        (7, 12, 3, 3, Router()),
        (1, 8, 8, 1, Router(renormalize=False)),
        (9, 16, 4, 4, GROUPED),
        (6, 16, 3, 2, Router("sigmoid", num_groups=8, top_groups=3)),
        (5, 16, 2, 16, Router("sigmoid", selection_bias=True)),
        (7, 24, 3, 12, Router(selection_bias=True)),
        (6, 32, 6, 32, Router(selection_bias=True)),
        (70, 8, 2, 4, Router(num_groups=4, top_groups=4)),
    ],
)
def test_route_tokens_lays_rows_out_as_plain_torch_does(
    tokens: int, experts: int, top_k: int, ranks: int, router: Router
) -> None:
    from moe_impl.kernels.route_tokens import route_tokens

    spread = 0.3 if router.scoring == "sigmoid" else 1 / experts
    bias = spread * normal(experts, seed=1) if router.selection_bias else None
    arguments = (normal(tokens, experts), router, top_k, bias, experts, ranks, ranks * tokens + 3)
    plain, found = route_plain(*arguments), route_tokens(*arguments)
    used = int(plain.num_rows)
    assert found.capacity == plain.capacity == ranks * tokens + 3
    assert int(found.num_rows) == used
    assert int(found.num_node_rows) == int(plain.num_node_rows)
    assert torch.equal(found.row_TR, plain.row_TR)
    assert torch.equal(found.token_M[:used], plain.token_M[:used])
    assert torch.equal(found.experts_MK[:used], plain.experts_MK[:used])
    here = plain.experts_MK[:used] >= 0
    torch.testing.assert_close(found.weights_MK[:used][here], plain.weights_MK[:used][here], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("tokens", "experts", "top_k", "ranks"), [(7, 12, 3, 3), (70, 8, 2, 4), (5, 16, 2, 16), (3, 8, 8, 1), (0, 8, 2, 4)]
)
def test_route_tokens_lays_out_what_peers_chose_and_not_its_own(
    tokens: int, experts: int, top_k: int, ranks: int
) -> None:
    from moe_impl.kernels.route_tokens import route_tokens

    local = experts // ranks
    ids = normal(tokens, ranks, experts, seed=2).argsort(-1)[..., :top_k].sort(-1).values.int() - local * (ranks - 1)
    peers = rows.PeerChoices(torch.where(ids >= 0, ids, -1), normal(tokens, ranks, top_k, seed=3))
    arguments = (normal(tokens, experts), Router(), top_k, None, experts, ranks, ranks * tokens + 3, peers)
    plain, found = route_plain(*arguments), route_tokens(*arguments)
    used = int(plain.num_rows)
    assert (int(found.num_rows), int(found.num_pairs)) == (used, int((ids >= 0).sum()))
    assert found.num_node_rows is plain.num_node_rows is None
    assert torch.equal(found.row_TR, plain.row_TR)
    assert torch.equal(found.row_TR >= 0, (ids >= 0).any(-1))
    for name in ("token_M", "experts_MK", "weights_MK"):
        assert torch.equal(getattr(found, name)[:used], getattr(plain, name)[:used])


@pytest.mark.parametrize(("tokens", "experts", "top_k", "ranks"), [(300, 12, 3, 3), (5, 8, 8, 1), (0, 8, 2, 4)])
def test_count_peers_counts_what_plain_torch_counts(tokens: int, experts: int, top_k: int, ranks: int) -> None:
    from moe_impl.kernels.count_peers import count_peers

    sent = planned(tokens, experts, top_k, ranks)
    sent.experts_MK[int(sent.num_rows) :] = 7  # rows that are not there
    plain_R2, found_R2 = (torch.full((ranks, 2), -1, dtype=torch.int32) for _ in range(2))
    rows.count_peers(sent, plain_R2)
    count_peers(sent, found_R2)
    assert torch.equal(found_R2, plain_R2)
    assert found_R2.sum(0).tolist() == [int(sent.num_rows), int(sent.num_pairs)]


def test_route_tokens_gives_ties_to_the_lower_id() -> None:
    from moe_impl.kernels.route_tokens import route_tokens

    found = route_tokens(torch.zeros(3, 8), Router("sigmoid", num_groups=4, top_groups=2), 3, None, 8, 1)
    assert found.experts_MK.tolist() == [[0, 1, 2]] * 3


@pytest.mark.parametrize("layout", get_args(WorstCaseLayout))
@pytest.mark.parametrize(
    ("tokens", "experts", "top_k", "ranks"), [(5, 6, 3, 3), (1, 4, 1, 4), (6, 12, 3, 12), (50, 16, 4, 4)]
)
def test_sort_pairs_gives_the_same_bits(
    tokens: int, experts: int, top_k: int, ranks: int, layout: WorstCaseLayout
) -> None:
    from moe_impl.kernels.sort_pairs import SLOTS, sort_pairs

    plan = planned(tokens, experts, top_k, ranks)
    used = int(plan.num_rows)
    plain, found = rows.plan_pairs(plan, experts // ranks, layout), sort_pairs(plan, experts // ranks, layout)
    assert found.expert_stride == plain.expert_stride == (plan.capacity if layout == "per_expert" else None)
    assert torch.equal(found.ends_L, plain.ends_L)
    assert found.row_P.shape == plain.row_P.shape
    for start, end in zip(plain.starts.tolist(), plain.ends_L.tolist(), strict=True):
        assert torch.equal(found.row_P[start:end], plain.row_P[start:end])
    assert torch.equal(found.pair_MK[:used], plain.pair_MK[:used])
    assert tokens < 50 or used * top_k > SLOTS, "the largest case must need several programs"


@pytest.mark.parametrize("layout", get_args(WorstCaseLayout))
@pytest.mark.parametrize("most_counts", [4, 8, 12])
def test_sort_pairs_in_fewer_programs_than_chunks_gives_the_same_bits(
    most_counts: int, layout: WorstCaseLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moe_impl.kernels import sort_pairs

    plan = planned(200, 16, 4, 4)
    monkeypatch.setattr(sort_pairs, "MOST_COUNTS", most_counts)  # by 4 experts: 1, 2 and 3 programs
    found, plain = sort_pairs.sort_pairs(plan, 4, layout), rows.plan_pairs(plan, 4, layout)
    assert int(plan.num_rows) * 4 > 3 * sort_pairs.SLOTS
    assert torch.equal(found.ends_L, plain.ends_L)
    for start, end in zip(plain.starts.tolist(), plain.ends_L.tolist(), strict=True):
        assert torch.equal(found.row_P[start:end], plain.row_P[start:end])
    assert torch.equal(found.pair_MK[: int(plan.num_rows)], plain.pair_MK[: int(plan.num_rows)])


@pytest.mark.parametrize("width", [64, 80])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_move_rows_copies_the_counted_rows_and_no_other(count: int, width: int) -> None:
    from moe_impl.kernels.move_rows import move_rows

    source = normal(40, width).bfloat16()
    index = torch.randint(0, 40, (120,), dtype=torch.int32, generator=torch.Generator().manual_seed(3))
    index[count:] = 2**30
    counted, target = torch.tensor([count], dtype=torch.int32), torch.full((120, width), 7.0).bfloat16()
    move_rows(source, target, counted, index)
    assert torch.equal(target[:count], source[index[:count].long()])
    again = torch.full_like(target, 9.0)
    move_rows(target, again, counted)
    assert torch.equal(again[:count], target[:count])
    assert (target[count:] == 7).all()
    assert (again[count:] == 9).all()


@pytest.mark.parametrize("layout", get_args(WorstCaseLayout))
def test_gather_reduce_and_merge_agree_with_plain_torch(layout: WorstCaseLayout) -> None:
    from moe_impl.kernels.gather_pairs import gather_pairs
    from moe_impl.kernels.merge_rows import merge_rows
    from moe_impl.kernels.reduce_rows import reduce_rows

    plan, width = planned(24, 12, 3, 3), 80
    pairs, used = rows.plan_pairs(plan, 4, layout), int(plan.num_rows)
    spans = [slice(*span) for span in zip(pairs.starts.tolist(), pairs.ends_L.tolist(), strict=True)]
    counted = torch.cat([torch.arange(len(pairs.row_P))[span] for span in spans])
    received = normal(plan.capacity, width, seed=1).bfloat16()
    received[used:] = torch.nan
    permuted = gather_pairs(received, pairs)
    assert permuted.shape == (pairs.row_P.shape[0], width)
    assert torch.equal(permuted[counted], received[pairs.row_P[counted].long()])
    assert torch.equal(permuted[counted], rows.gather_pairs(received, pairs)[counted])

    outputs = torch.full((len(pairs.row_P), width), torch.nan).bfloat16()
    outputs[counted] = normal(len(counted), width, seed=2).bfloat16()
    plain, found = torch.full_like(received, 7.0), torch.full_like(received, 7.0)
    rows.reduce_rows(outputs, pairs, plan, plain)
    reduce_rows(outputs, pairs, plan, found)
    assert bf16_steps_apart(found, plain) <= 1
    assert (found[used:] == 7).all()

    plain[used:] = torch.nan
    x = normal(24, width, seed=3).bfloat16()
    y, following = rows.merge_rows(x, plain, plan)
    found_y, found_following = merge_rows(x, plain, plan)
    assert bf16_steps_apart(found_y, y) <= 1
    torch.testing.assert_close(found_following, following, rtol=2**-7, atol=3 * 2**-7)


def test_merge_keeps_x_where_a_tokens_output_is_zero() -> None:
    from moe_impl.kernels.merge_rows import merge_rows

    plan, x = planned(3, 4, 2, 2), normal(3, 32).bfloat16()
    y, following = merge_rows(x, torch.zeros(plan.capacity, 32).bfloat16(), plan)
    assert not y.any()
    assert torch.equal(following, x)


def test_add_normalized_agrees_with_plain_torch_and_keeps_x_where_there_is_nothing_to_add() -> None:
    from moe_impl.kernels.add_normalized import add_normalized

    x, y = normal(5, 80).bfloat16(), 7 * normal(5, 80, seed=1).bfloat16()
    y[2] = 0
    y[4, 3] = torch.nan
    found, plain = add_normalized(x, y), rows.add_normalized(x, y)
    assert bf16_steps_apart(found[:4], plain[:4]) <= 1
    assert torch.equal(found[2], x[2])
    assert found[4].isnan().all(), "what was read before it was written must show"
    assert plain[4].isnan().all()
    with pytest.raises(ValueError, match="differ in shape"):
        add_normalized(x, y[:3])


@pytest.mark.parametrize("scaled", [False, True])
def test_silu_mul_scales_by_expert_before_and_after(scaled: bool) -> None:
    from moe_impl.kernels.silu_mul import silu_mul

    gate_up = normal(90, 2 * 48).bfloat16()
    ends = torch.tensor([0, 30, 30, 71], dtype=torch.int32)
    gate_up[71:] = torch.nan
    scales = (normal(4, seed=1).abs() + 0.1, normal(4, seed=2).abs() + 0.1) if scaled else None
    found, plain = silu_mul(gate_up, ends, scales), silu_mul_plain(gate_up, ends, scales)
    assert found.shape == (90, 48)
    assert bf16_steps_apart(found[:71], plain[:71]) <= 1
    if scales:
        by_expert = silu_mul_plain(gate_up, ends, None)[:30].float() * scales[0][1] * scales[1][1]
        assert not torch.allclose(plain[:30].float(), by_expert, rtol=0.05), "gate's scale must go through silu"


def test_wrong_shapes_are_refused() -> None:
    from moe_impl.kernels.merge_rows import merge_rows
    from moe_impl.kernels.move_rows import move_rows
    from moe_impl.kernels.reduce_rows import reduce_rows
    from moe_impl.kernels.route_tokens import route_tokens
    from moe_impl.kernels.silu_mul import silu_mul

    plan, narrow, wide = planned(4, 4, 2, 2), torch.zeros(8, 32).bfloat16(), torch.zeros(8, 48).bfloat16()
    pairs, one = rows.plan_pairs(plan, 2), torch.tensor([1], dtype=torch.int32)
    with pytest.raises(ValueError, match="row widths differ: 32 and 48"):
        move_rows(narrow, wide, one)
    with pytest.raises(ValueError, match="differ in width"):
        reduce_rows(narrow, pairs, plan, wide)
    with pytest.raises(ValueError, match="differ in width"):
        merge_rows(narrow, wide, plan)
    with pytest.raises(ValueError, match=r"expected \[P', 2I\], got \(8, 33\)"):
        silu_mul(torch.zeros(8, 33).bfloat16(), pairs.ends_L)
    with pytest.raises(ValueError, match="8 logits a token for 9 experts"):
        route_tokens(torch.zeros(2, 8), Router(), 2, None, 9, 3)
    with pytest.raises(ValueError, match="ep_size 3 does not divide 8 experts"):
        route_tokens(torch.zeros(2, 8), Router(), 2, None, 8, 3)
    peers = rows.PeerChoices(torch.zeros(2, 4, 2, dtype=torch.int32), torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match=r"choices of peers of shape \(2, 4, 2\), expected \(2, 2, 2\)"):
        route_tokens(torch.zeros(2, 8), Router(), 2, None, 8, 2, peers=peers)
    with pytest.raises(ValueError, match=r"takes 1, 2, 4, ... groups, got 3"):
        route_tokens(torch.zeros(2, 9), Router(num_groups=3, top_groups=2), 2, None, 9, 3)
