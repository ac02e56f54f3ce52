"""The issue order of both engines' schedules, the data dependencies in it, and the shares of a batch."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_impl.options import Order, Variant
from moe_impl.overlap.lanes import awaited_across
from moe_impl.overlap.schedule import ORDERS, Schedule, build, for_variant, token_slices
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


def test_a_segment_reaches_over_the_layer_boundary() -> None:
    first_layer_begins_the_next = issued(build(2, 2, "yield_after")).index((1, 0, Stage.ROUTE))
    assert issued(build(2, 2, "yield_after"))[first_layer_begins_the_next - 1] == (0, 0, Stage.MERGE)


@given(layers=st.integers(1, 3), num_ubatches=st.integers(1, 4), order=st.sampled_from(ORDERS))
def test_every_micro_batch_passes_all_stages_in_order_and_reads_only_its_last_op(
    layers: int, num_ubatches: int, order: Order
) -> None:
    schedule = build(layers, num_ubatches, order)
    assert len(schedule.ops) == layers * num_ubatches * len(Stage)
    for ubatch in range(num_ubatches):
        positions = [position for position, op in enumerate(schedule.ops) if op.ubatch == ubatch]
        chain = [(schedule.ops[p].layer, schedule.ops[p].stage) for p in positions]
        assert chain == [(layer, stage) for layer in range(layers) for stage in Stage]
        assert [schedule.ops[p].after for p in positions] == [(), *((p,) for p in positions[:-1])]
    assert all(op.lane == lane_of(op.stage) for op in schedule.ops)


def test_with_one_micro_batch_the_order_does_not_matter() -> None:
    assert build(2, 1, "yield_before").ops == build(2, 1, "yield_after").ops


def test_a_variant_runs_its_split_in_its_order() -> None:
    schedule = for_variant(Variant("torch", split_factor=3, order="yield_before"), layers=2)
    assert schedule == build(2, 3, "yield_before")
    assert for_variant(Variant("torch").unsplit(), 2).num_ubatches == 1


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


@given(tokens=st.integers(1, 300), num_ubatches=st.integers(1, 8))
def test_shares_are_contiguous_and_near_equal_with_the_larger_first(tokens: int, num_ubatches: int) -> None:
    if tokens < num_ubatches:
        with pytest.raises(ValueError, match=f"{tokens} tokens cannot fill {num_ubatches} micro-batches"):
            token_slices(tokens, num_ubatches)
        return
    slices = token_slices(tokens, num_ubatches)
    sizes = [share.stop - share.start for share in slices]
    assert (slices[0].start, slices[-1].stop, len(slices)) == (0, tokens, num_ubatches)
    assert all(before.stop == after.start for before, after in pairwise(slices))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
