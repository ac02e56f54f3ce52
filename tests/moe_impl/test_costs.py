"""The bill of a case, against numbers worked out by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from moe_impl import costs
from moe_impl.options import EQUAL, SkewedRouting, SplitPolicy, Variant, Workload
from moe_impl.overlap.schedule import chain
from moe_impl.routing import select_experts
from moe_impl.shapes import PRESETS, ModelShape
from moe_impl.split import capacity_tokens
from moe_impl.stages import Stage

# H 64, I 32, E 8, K 2 on 4 ranks: 2 local experts; 16 tokens.
SMALL = Workload(ModelShape(64, 32, 8, 2), ep_size=4, layers=3, tokens=16, precision="bf16")
COPIES = 4 * (1 - 15 / 28)  # C(6, 2) / C(8, 2): both experts of a token on the other three ranks


def deepseek(ep_size: int, routing: str = "uniform") -> Workload:
    return Workload(PRESETS["deepseek-v3"], ep_size, 1, 4096, "bf16", routing=routing)  # type: ignore[arg-type]


def total(bill: list[costs.Cost], stage: Stage, field: str, term: str | None = None) -> float:
    return sum(getattr(cost, field) for cost in bill if cost.stage == stage and term in (None, cost.term))


@pytest.mark.parametrize(("ep_size", "copies"), [(1, 1.0), (4, 3.61), (8, 5.30), (16, 6.52), (32, 7.27), (64, 7.68)])
def test_expected_copies_are_the_published_values_for_256_experts_and_top_8(ep_size: int, copies: float) -> None:
    assert costs.expected_copies(deepseek(ep_size)) == pytest.approx(copies, abs=0.01)


@pytest.mark.parametrize(("ep_size", "copies"), [(4, 1.0), (8, 1.0), (16, 1.99), (32, 3.61), (64, 5.30)])
def test_expected_node_copies_are_those_of_as_many_ranks(ep_size: int, copies: float) -> None:
    workload = deepseek(ep_size)
    assert costs.expected_copies(workload, "node") == pytest.approx(copies, abs=0.01)
    assert costs.transfer_bytes(workload, "combine", "node") == pytest.approx(4096 * copies * 14336, rel=0.005)


@pytest.mark.parametrize("ep_size", [1, 2, 4, 8, 16, 32])
def test_copies_under_a_group_limited_router_are_what_that_router_makes(ep_size: int) -> None:
    """Up to a tenth more than estimated: the router prefers groups with strong experts to evenly drawn ones."""
    model = PRESETS["deepseek-v3"]
    logits = torch.randn(2000, 256, generator=torch.Generator().manual_seed(1))
    ids, _ = select_experts(logits, model.router, 8, torch.zeros(256))
    ranks = (ids // (256 // ep_size)).sort(1).values
    distinct = 1 + (ranks.diff(dim=1) > 0).sum(1).double().mean()
    assert 0.99 <= float(distinct) / costs.expected_copies(deepseek(ep_size, "model")) <= 1.1


def test_a_skewed_routing_is_estimated_as_balanced_and_its_tables_need_memory() -> None:
    skewed = replace(SMALL, routing=SkewedRouting("zipf", 1.0))
    assert costs.layer_costs(skewed, 2) == costs.layer_costs(replace(SMALL, routing="uniform"), 2)
    more = costs.buffer_bytes(skewed, Variant("torch")) - costs.buffer_bytes(SMALL, Variant("torch"))
    assert more == 3 * 16 * 4 * 2 * 8  # layers, tokens, peers, experts a token; an id and a weight


def test_expected_copies_of_a_small_shape() -> None:
    assert costs.expected_copies(SMALL) == pytest.approx(COPIES)
    assert costs.transfer_bytes(SMALL, "dispatch") == pytest.approx(16 * COPIES * 128)


def test_gemm_flops_are_two_per_weight_and_pair() -> None:
    bill = costs.layer_costs(SMALL, 1)
    pairs = 16 * 2
    assert total(bill, Stage.GEMM1, "flops") == 2 * pairs * (2 * 32) * 64
    assert total(bill, Stage.GEMM2, "flops") == 2 * pairs * 64 * 32


def test_a_split_reads_the_weights_once_per_micro_batch_and_changes_no_flops() -> None:
    whole, split = costs.layer_costs(deepseek(8), 1), costs.layer_costs(deepseek(8), 2)
    for stage, values in ((Stage.GEMM1, 2 * 2048 * 7168), (Stage.GEMM2, 2048 * 7168)):
        assert total(whole, stage, "hbm_bytes", "weights") == pytest.approx(32 * values * 2)  # all experts hit
        assert total(split, stage, "hbm_bytes", "weights") == pytest.approx(2 * 32 * values * 2)
        assert total(split, stage, "flops") == total(whole, stage, "flops")
        assert total(split, Stage.SHARED, "hbm_bytes", "weights") == 2 * 3 * 2048 * 7168 * 2
    others = [cost for cost in whole if cost.term != "weights"]
    assert others == [cost for cost in split if cost.term != "weights"]


def test_experts_without_tokens_are_not_read() -> None:
    one_token_each = replace(SMALL, tokens=1)
    hit = 1 - (1 - 2 / 8) ** 4  # of 4 ranks' tokens with 2 of 8 experts each
    found = total(costs.layer_costs(one_token_each, 1), Stage.GEMM2, "hbm_bytes", "weights")
    assert found == pytest.approx(2 * hit * 2 * 64 * 32)


def test_every_stage_has_a_term() -> None:
    with_shared = replace(SMALL, model=replace(SMALL.model, shared_experts=1))
    for work in (SMALL, with_shared, replace(SMALL, precision="nvfp4"), replace(SMALL, precision="fp8")):
        assert {cost.stage for cost in costs.layer_costs(work, 1)} == set(chain(work))


def test_row_stages_move_the_rows_in_and_out() -> None:
    bill = costs.layer_costs(SMALL, 1)
    rows_bytes, pairs_bytes, tokens_bytes = 16 * COPIES * 128, 32 * 128, 16 * 128
    assert total(bill, Stage.DISPATCH, "hbm_bytes") == pytest.approx(2 * rows_bytes)
    assert total(bill, Stage.COMBINE, "hbm_bytes") == pytest.approx(2 * rows_bytes)
    assert total(bill, Stage.PERMUTE, "hbm_bytes") == pytest.approx(2 * pairs_bytes)
    assert total(bill, Stage.SILU_MUL, "hbm_bytes") == pytest.approx(32 * 2 * (64 + 32))
    assert total(bill, Stage.REDUCE, "hbm_bytes") == pytest.approx(pairs_bytes + rows_bytes)
    assert total(bill, Stage.MERGE, "hbm_bytes") == pytest.approx(rows_bytes + 2 * tokens_bytes)
    assert total(bill, Stage.ROUTE, "hbm_bytes") == 4 * 16 * 8


def test_fp4_tensor_cores_read_codes_and_permute_moves_none() -> None:
    w4a4 = replace(SMALL, precision="nvfp4", dispatch_dtype="nvfp4", model=replace(SMALL.model, shared_experts=1))
    expanded, as_codes = costs.layer_costs(w4a4, 1), costs.layer_costs(w4a4, 1, as_codes=True)
    x_row, h_row, pairs = 64 // 2 + 64 // 16, 32 // 2 + 32 // 16, 32
    assert total(as_codes, Stage.GEMM1, "hbm_bytes", "pairs read") == pairs * x_row
    assert total(expanded, Stage.GEMM1, "hbm_bytes", "pairs read") == pairs * 2 * 64
    assert total(as_codes, Stage.SILU_MUL, "hbm_bytes", "h written") == pairs * h_row
    assert total(as_codes, Stage.GEMM2, "hbm_bytes", "h read") == pairs * h_row
    assert total(as_codes, Stage.SHARED, "hbm_bytes", "h written and read") == 2 * 16 * h_row
    assert total(as_codes, Stage.PERMUTE, "hbm_bytes") == 0
    assert {cost.stage for cost in as_codes} == {cost.stage for cost in expanded}


def test_fp8_rows_are_a_byte_a_value_and_a_scale_all_the_way_to_the_gemms() -> None:
    fp8 = replace(SMALL, precision="fp8", dispatch_dtype="fp8", model=replace(SMALL.model, shared_experts=1))
    bill, pairs, x_row, h_row = costs.layer_costs(fp8, 1), 32, 64 + 4, 32 + 4
    assert total(bill, Stage.QUANTIZE, "hbm_bytes") == 16 * (128 + x_row)
    assert total(bill, Stage.DISPATCH, "hbm_bytes") == pytest.approx(2 * 16 * COPIES * x_row)
    assert total(bill, Stage.PERMUTE, "hbm_bytes") == 2 * pairs * x_row
    assert total(bill, Stage.GEMM1, "hbm_bytes", "pairs read") == pairs * x_row
    assert total(bill, Stage.SILU_MUL, "hbm_bytes") == pairs * (128 + h_row)
    assert total(bill, Stage.GEMM2, "hbm_bytes", "h read") == pairs * h_row
    assert total(bill, Stage.GEMM2, "hbm_bytes", "weights") == pytest.approx(2 * 64 * 32, rel=1e-3)
    assert total(bill, Stage.SHARED, "hbm_bytes", "x quantized, written and read") == 2 * 16 * x_row
    assert total(bill, Stage.SHARED, "hbm_bytes", "h written and read") == 2 * 16 * h_row
    assert costs.weight_bytes(fp8, "torch") == 3 * 3 * 3 * 64 * 32
    wide = replace(fp8, model=ModelShape(64, 512, 8, 2))
    saved = costs.buffer_bytes(replace(wide, precision="bf16", dispatch_dtype="bf16"), Variant("torch"))
    saved -= costs.buffer_bytes(wide, Variant("torch"))
    assert saved == 2 * 4 * 8 * (1024 - 512 - 4), "of h, in the largest of the stages, for 8 tokens of 4 ranks"


@pytest.mark.parametrize(("ep_size", "pairs_a_row"), [(1, 8), (8, 8), (64, 4)])
def test_the_worst_case_is_every_token_of_every_rank_with_all_experts_that_fit(ep_size: int, pairs_a_row: int) -> None:
    capacity = costs.worst_case(deepseek(ep_size), 100)
    assert (capacity.rows, capacity.pairs) == (ep_size * 100, ep_size * 100 * pairs_a_row)


def test_in_layout_per_expert_gemm1_of_deepseek_v3_unsplit_writes_17_gigabytes() -> None:
    """FastDeploy's buffers [E/R, R * ceil(max / S), N] for 8192 tokens of 8 ranks: 32 local experts, N = 4096."""
    for split_factor, gigabytes in ((1, 17.18), (2, 8.59), (4, 4.29)):
        variant = Variant("triton", split_factor=split_factor, max_tokens_per_rank=8192, worst_case_layout="per_expert")
        capacity = costs.worst_case(deepseek(8), capacity_tokens(variant, 4096), variant.worst_case_layout)
        assert capacity.pairs == 32 * 8 * 8192 // split_factor
        assert capacity.pairs * 4096 * 2 / 1e9 == pytest.approx(gigabytes, abs=0.005)


def test_buffers_are_those_of_the_largest_batch_and_of_the_layout() -> None:
    def needs(tokens: int, **more: Any) -> int:
        inputs = 3 * 4 * tokens * 8 + 4 * tokens * 128
        return costs.buffer_bytes(replace(SMALL, tokens=tokens), Variant("triton", **more)) - inputs

    for layout in ("packed", "per_expert"):
        assert needs(10, max_tokens_per_rank=16, worst_case_layout=layout) == needs(16, worst_case_layout=layout)
        halves, whole = (needs(16, split_factor=split, worst_case_layout=layout) for split in (2, 1))
        waiting = 2 * 4 * 8 * 128  # received and returned rows of 8 tokens of 4 ranks
        assert halves == whole / 2 + waiting
    # 2 local experts, 2 a token: a row has at most 2 pairs in either layout. With 8 experts a rank: 8, not 2.
    assert needs(16, worst_case_layout="per_expert") == needs(16)
    alone = replace(SMALL, ep_size=1)
    packed, per_expert = (costs.worst_case(alone, 16, layout).pairs for layout in ("packed", "per_expert"))
    assert (packed, per_expert) == (16 * 2, 16 * 8)


def test_weights_are_3_55_times_smaller_in_nvfp4_unless_a_bf16_copy_stands_beside_them() -> None:
    values = 3 * 2 * 3 * 64 * 32  # layers, local experts, matrices
    nvfp4 = replace(SMALL, precision="nvfp4-w4a16")
    assert costs.weight_bytes(SMALL, "torch") == 2 * values
    assert costs.weight_bytes(nvfp4, "triton") == 2 * (values * 9 // 16)
    assert costs.weight_bytes(nvfp4, "torch") == values * 9 // 16 + 2 * values


def test_a_split_needs_smaller_buffers() -> None:
    whole, halves, quarters = (costs.buffer_bytes(deepseek(8), Variant("torch", split_factor=s)) for s in (1, 2, 4))
    assert whole > halves > quarters


def test_an_uneven_split_needs_the_buffers_of_its_largest_share() -> None:
    uneven = costs.buffer_bytes(replace(SMALL, tokens=17), Variant("torch"))
    even = costs.buffer_bytes(replace(SMALL, tokens=18), Variant("torch"))
    inputs_of_one_token = 3 * 4 * 8 + 4 * 128
    waiting_rows_of_one_token = 2 * 4 * 128  # received and returned, of 4 ranks; 9 tokens compute in both
    assert even - uneven == inputs_of_one_token + waiting_rows_of_one_token


def test_the_larger_share_of_a_ratio_needs_most_and_a_split_that_turns_itself_off_needs_all() -> None:
    def needs(split: SplitPolicy, tokens: int = 100) -> int:
        return costs.buffer_bytes(replace(SMALL, tokens=tokens), Variant("torch", split=split))

    equal, small_first, large_first = (needs(SplitPolicy("ratio", ratio)) for ratio in (0.5, 0.1, 0.9))
    assert small_first == large_first > equal == needs(EQUAL) == needs(SplitPolicy("balanced"))
    unsplit = costs.buffer_bytes(replace(SMALL, tokens=100), Variant("torch").unsplit())
    assert needs(SplitPolicy(min_tokens=101)) == unsplit > large_first
    assert needs(SplitPolicy(min_tokens=100)) == equal


def test_the_send_buffer_of_a_host_link_holds_the_largest_share() -> None:
    whole, most = (
        costs.send_buffer_bytes(replace(SMALL, tokens=100), variant)
        for variant in (Variant("torch").unsplit(), Variant("torch", split=SplitPolicy("ratio", 0.1)))
    )
    assert most == pytest.approx(0.9 * whole, abs=1)
