"""The issue order of all engines' schedules, where micro-batches hand over, and the data dependencies in it."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_schedule import PLAIN, STAGES, build

from moe_impl.options import Order, Precision, Variant
from moe_impl.overlap.lanes import awaited_across
from moe_impl.overlap.schedule import ORDERS, Schedule, chain, for_variant, segments
from moe_impl.payload import PayloadDtype
from moe_impl.stages import Stage, lane_of

EXPERTS = [Stage.PERMUTE, Stage.GEMM1, Stage.SILU_MUL, Stage.GEMM2, Stage.REDUCE]
ISSUED = {
    "yield_after": [[Stage.ROUTE, Stage.DISPATCH], [*EXPERTS, Stage.COMBINE], [Stage.MERGE]],
    "yield_before": [[Stage.ROUTE], [Stage.DISPATCH, *EXPERTS], [Stage.COMBINE, Stage.MERGE]],
}


def issued(schedule: Schedule) -> list[tuple[int, int, Stage]]:
    return [(op.layer, op.ubatch, op.stage) for op in schedule.ops]


@pytest.mark.parametrize("order", ORDERS)
def test_micro_batches_hand_over_where_the_order_says(order: Order) -> None:
    expected = [(0, ubatch, stage) for segment in ISSUED[order] for ubatch in (0, 1) for stage in segment]
    assert issued(build(1, 2, order)) == expected


@pytest.mark.parametrize("order", ORDERS)
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
