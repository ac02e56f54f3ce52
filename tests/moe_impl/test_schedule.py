"""The issue order of all engines' schedules, where micro-batches hand over, and the data dependencies in it."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_schedule import PLAIN, STAGES, WHOLE, build

from moe_impl.options import Order, Precision, Variant
from moe_impl.overlap.lanes import awaited_across
from moe_impl.overlap.schedule import ORDERS, PHASE_OFFSET, Schedule, chain, for_variant, segments
from moe_impl.payload import PayloadDtype
from moe_impl.stages import Stage, lane_of

EXPERTS = [Stage.PERMUTE, Stage.GEMM1, Stage.SILU_MUL, Stage.GEMM2, Stage.REDUCE]
TURNS: dict[Order, list[tuple[int, list[Stage]]]] = {
    "yield_after": [
        *((ubatch, [Stage.ROUTE, Stage.DISPATCH]) for ubatch in (0, 1)),
        *((ubatch, [*EXPERTS, Stage.COMBINE]) for ubatch in (0, 1)),
        *((ubatch, [Stage.MERGE]) for ubatch in (0, 1)),
    ],
    "yield_before": [
        *((ubatch, [Stage.ROUTE]) for ubatch in (0, 1)),
        *((ubatch, [Stage.DISPATCH, *EXPERTS]) for ubatch in (0, 1)),
        *((ubatch, [Stage.COMBINE, Stage.MERGE]) for ubatch in (0, 1)),
    ],
    "sglang_decode": [
        (0, [Stage.ROUTE, Stage.DISPATCH, *EXPERTS, Stage.COMBINE]),
        (1, [Stage.ROUTE, Stage.DISPATCH]),
        (0, [Stage.MERGE]),
        (1, [*EXPERTS, Stage.COMBINE, Stage.MERGE]),
    ],
    "vllm": [
        (0, [Stage.ROUTE, Stage.DISPATCH]),
        (1, [Stage.ROUTE, Stage.DISPATCH]),
        (0, [*EXPERTS, Stage.COMBINE]),
        (1, EXPERTS),
        (0, [Stage.MERGE]),
        (1, [Stage.COMBINE, Stage.MERGE]),
    ],
}
TURNS["sglang_prefill"] = TURNS["yield_after"]  # they part where there are shared experts
IN_STEP = [order for order in ORDERS if order not in PHASE_OFFSET]


def issued(schedule: Schedule) -> list[tuple[int, int, Stage]]:
    return [(op.layer, op.ubatch, op.stage) for op in schedule.ops]


@pytest.mark.parametrize("order", ORDERS)
def test_micro_batches_hand_over_where_the_order_says(order: Order) -> None:
    expected = [(0, ubatch, stage) for ubatch, stages in TURNS[order] for stage in stages]
    assert issued(build(1, 2, order)) == expected


@pytest.mark.parametrize("order", IN_STEP)
@pytest.mark.parametrize("num_ubatches", [1, 2, 3, 4])
def test_hand_overs_go_round_where_segments_end(num_ubatches: int, order: Order) -> None:
    schedule = build(2, num_ubatches, order)
    cuts = segments(order, STAGES, 2)
    ends = [cut[-1] for cut in cuts]
    found = [(schedule.ops[p].ubatch, (schedule.ops[p].layer, schedule.ops[p].stage)) for p in schedule.hand_overs]
    everywhere = [(ubatch, end) for end in ends for ubatch in range(num_ubatches)]
    assert found == ([] if num_ubatches == 1 else everywhere[:-1]), "the last op has no one to hand over to"
    for position, taker in schedule.hand_overs.items():
        assert taker == (schedule.ops[position].ubatch + 1) % num_ubatches


@pytest.mark.parametrize(("order", "yields"), [("sglang_prefill", 2), ("sglang_decode", 5), ("vllm", 6)])
def test_an_engines_order_has_its_yields_in_every_layer(order: Order, yields: int) -> None:
    stages = chain(WHOLE)
    assert [len(segments(order, stages, layers)) - 1 for layers in (1, 2, 3)] == [yields, 2 * yields, 3 * yields]
    for layers in (1, 3):
        passed = [op for cut in segments(order, stages, layers) for op in cut]
        assert sorted(passed) == sorted((layer, stage) for layer in range(layers) for stage in stages)


@pytest.mark.parametrize("order", PHASE_OFFSET)
@pytest.mark.parametrize("num_ubatches", [2, 3])
def test_a_micro_batch_follows_the_one_before_it_by_the_phase_offset(num_ubatches: int, order: Order) -> None:
    cuts, offset = segments(order, chain(WHOLE), 3), PHASE_OFFSET[order]
    place = {op: index for index, cut in enumerate(cuts) for op in cut}
    at = [
        (place[op.layer, op.stage] + offset * op.ubatch, op.ubatch)
        for op in for_variant(Variant("torch", split_factor=num_ubatches, order=order), replace(WHOLE, layers=3)).ops
    ]
    assert at == sorted(at)
    assert len({turn for turn, _ in at} & {turn for turn, ubatch in at if ubatch}) > len(cuts) // 2


def test_sglangs_prefill_runs_the_shared_experts_beside_combine() -> None:
    assert segments("sglang_prefill", chain(WHOLE), 1) == [
        [(0, stage) for stage in stages]
        for stages in (
            [Stage.ATTENTION, Stage.ROUTE, Stage.DISPATCH],
            [*EXPERTS, Stage.COMBINE],
            [Stage.SHARED, Stage.MERGE],
        )
    ]


@pytest.mark.parametrize("order", ["sglang_prefill", "vllm"])
def test_two_micro_batches_without_shared_experts_run_alike_in_both_lanes(order: Order) -> None:
    work = replace(WHOLE, model=PLAIN.model, layers=3)

    def by_lane(order: Order) -> dict[str, list[str]]:
        ops = for_variant(Variant("torch", order=order), work).ops
        return {lane: [str(op) for op in ops if op.lane == lane] for lane in ("compute", "comm")}

    assert by_lane(order) == by_lane("yield_after")


def test_vllms_order_is_the_one_it_documents() -> None:
    """``D1 send, A0 A1, D1 recv, D0 send, MLP1, D0 recv, C1 send, S1, MLP0, C1 recv, C0 send, S0, A0 A1, C0 recv``,
    first and second micro-batch being 1 and 0 there; our merge is where the combine has come."""
    attention, mlp = [Stage.ATTENTION, Stage.ROUTE], EXPERTS
    documented = [
        *((1, 0, Stage.DISPATCH), *((1, 1, stage) for stage in attention)),
        *((1, 1, Stage.DISPATCH), *((1, 0, stage) for stage in mlp)),
        *((1, 0, Stage.COMBINE), (1, 0, Stage.SHARED), *((1, 1, stage) for stage in mlp), (1, 0, Stage.MERGE)),
        *((1, 1, Stage.COMBINE), (1, 1, Stage.SHARED), *((2, 0, stage) for stage in attention), (1, 1, Stage.MERGE)),
    ]
    found = issued(for_variant(Variant("torch", order="vllm"), replace(WHOLE, layers=3)))
    begin = found.index((1, 0, Stage.DISPATCH))
    assert found[begin : begin + len(documented)] == documented


@pytest.mark.parametrize(("dispatch_dtype", "with_route"), [("nvfp4", True), ("bf16", False)])
@pytest.mark.parametrize("order", ORDERS)
def test_quantize_stays_on_its_side_of_dispatch(order: Order, dispatch_dtype: PayloadDtype, with_route: bool) -> None:
    work = replace(PLAIN, precision="nvfp4", dispatch_dtype=dispatch_dtype)
    cuts = segments(order, chain(work), 1)
    together = next(cut for cut in cuts if (0, Stage.QUANTIZE) in cut)
    assert ((0, Stage.ROUTE) in together) == with_route
    assert ((0, Stage.PERMUTE) in together) != with_route


def test_chains_are_the_ops_of_each_micro_batch_in_order() -> None:
    schedule = build(2, 3, "yield_before")
    assert sorted(p for positions in schedule.chains.values() for p in positions) == list(range(len(schedule.ops)))
    for ubatch, positions in schedule.chains.items():
        assert list(positions) == sorted(positions)
        assert {schedule.ops[p].ubatch for p in positions} == {ubatch}


def test_a_segment_reaches_over_the_layer_boundary() -> None:
    first_layer_begins_the_next = issued(build(2, 2, "yield_after")).index((1, 0, Stage.ROUTE))
    assert issued(build(2, 2, "yield_after"))[first_layer_begins_the_next - 1] == (0, 0, Stage.MERGE)


@given(layers=st.integers(1, 3), num_ubatches=st.integers(1, 4), order=st.sampled_from(ORDERS))
def test_every_micro_batch_passes_all_stages_in_order_and_reads_only_its_last_op(
    layers: int, num_ubatches: int, order: Order
) -> None:
    schedule = build(layers, num_ubatches, order)
    assert len(schedule.ops) == layers * num_ubatches * len(STAGES)
    for ubatch in range(num_ubatches):
        positions = [position for position, op in enumerate(schedule.ops) if op.ubatch == ubatch]
        chain = [(schedule.ops[p].layer, schedule.ops[p].stage) for p in positions]
        assert chain == [(layer, stage) for layer in range(layers) for stage in STAGES]
        assert [schedule.ops[p].after for p in positions] == [(), *((p,) for p in positions[:-1])]
    assert all(op.lane == lane_of(op.stage) for op in schedule.ops)


def test_with_one_micro_batch_the_order_does_not_matter() -> None:
    assert build(2, 1, "yield_before").ops == build(2, 1, "yield_after").ops


def test_a_variant_runs_its_split_in_its_order() -> None:
    schedule = for_variant(Variant("torch", split_factor=3, order="yield_before"), PLAIN)
    assert schedule == build(2, 3, "yield_before")
    assert for_variant(Variant("torch").unsplit(), PLAIN).num_ubatches == 1


def test_only_ops_that_another_lane_reads_need_an_event() -> None:
    schedule = build(1, 2, "yield_after")
    awaited = {(schedule.ops[p].ubatch, schedule.ops[p].stage) for p in awaited_across(schedule)}
    crossing = (Stage.ROUTE, Stage.DISPATCH, Stage.REDUCE, Stage.COMBINE)
    assert awaited == {(ubatch, stage) for ubatch in (0, 1) for stage in crossing}


def test_a_schedule_is_drawn_as_two_lanes_of_equal_width() -> None:
    compute, comm = build(1, 2, "yield_after").drawn().splitlines()
    assert compute.startswith("Comp: |route 0.0|            |route 0.1|            |permute 0.0|gemm1 0.0|")
    assert comm.startswith("Comm: |         |dispatch 0.0|         |dispatch 0.1|           |")
    assert len(compute) == len(comm)


def test_serial_is_drawn_as_one_lane_and_threads_with_the_thread_that_issues() -> None:
    schedule = build(1, 2, "yield_after")
    assert schedule.drawn("serial").startswith("One:  |route 0.0|dispatch 0.0|route 0.1|dispatch 0.1|permute 0.0|")
    host, *lanes = schedule.drawn("threads").splitlines()
    assert lanes == schedule.drawn("streams").splitlines()
    assert {len(host)} == {len(lane) for lane in lanes}
    assert re.findall(r"\|(thread \d)", host) == ["thread 0", "thread 1"] * 3
    for position, bar in enumerate(host[6:]):
        if bar == "|":
            assert {lane[6 + position] for lane in lanes} == {"|"}, "a turn ends where an op ends"


@pytest.mark.parametrize(
    ("precision", "dispatch_dtype", "before", "after"),
    [
        ("bf16", None, "route dispatch", "permute gemm1 silu_mul gemm2 reduce combine merge"),
        ("nvfp4", None, "route quantize dispatch", "permute gemm1 silu_mul gemm2 reduce combine merge"),
        ("nvfp4", "bf16", "route dispatch", "quantize permute gemm1 silu_mul gemm2 reduce combine merge"),
        ("fp8", "bf16", "route dispatch", "quantize permute gemm1 silu_mul gemm2 reduce combine merge"),
    ],
)
@pytest.mark.parametrize("shared_experts", [0, 1])
def test_a_workloads_chain(
    precision: Precision, dispatch_dtype: PayloadDtype, before: str, after: str, shared_experts: int
) -> None:
    model = replace(PLAIN.model, shared_experts=shared_experts)
    work = replace(PLAIN, model=model, precision=precision, dispatch_dtype=dispatch_dtype)
    expected = [*before.split(), *(["shared"] if shared_experts else []), *after.split()]
    assert [str(stage) for stage in chain(work)] == expected


@pytest.mark.parametrize("order", ORDERS)
def test_shared_experts_may_run_beside_dispatch_and_merge_reads_them(order: Order) -> None:
    with_shared = replace(PLAIN, model=replace(PLAIN.model, shared_experts=1))
    ops = for_variant(Variant("torch", order=order), with_shared).ops
    for position, op in enumerate(ops):
        if op.stage == Stage.SHARED:
            (read,) = op.after
            assert (ops[read].stage, ops[read].layer, ops[read].ubatch) == (Stage.ROUTE, op.layer, op.ubatch)
            assert op.lane == "compute"
            readers = [later for later in ops if position in later.after]
            assert [(later.stage, later.layer, later.ubatch) for later in readers] == [
                (Stage.MERGE, op.layer, op.ubatch)
            ]
        if op.stage == Stage.PERMUTE:
            assert [ops[before].stage for before in op.after] == [Stage.DISPATCH]
