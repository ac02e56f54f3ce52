"""Attention in the schedule: first in its layer, on the compute lane, beside the other micro-batch's communication."""

from dataclasses import replace

import pytest
from plain_schedule import PLAIN, STAGES

from moe_impl.attention_shapes import GqaShape
from moe_impl.options import Attention, Order, Variant
from moe_impl.overlap.makespan import makespan_s
from moe_impl.overlap.schedule import ORDERS, Schedule, chain, for_variant
from moe_impl.stages import Stage, lane_of

WITH = replace(PLAIN, attention=Attention(64, shape=GqaShape(4, 2, 16)))
VARIANT = Variant("torch")


def seconds(schedule: Schedule, **stages: float) -> list[float]:
    return [stages.get(op.stage.value, 0.0) for op in schedule.ops]


def test_attention_comes_first_and_only_where_the_workload_has_it() -> None:
    assert Stage.ATTENTION not in chain(PLAIN)
    assert chain(WITH) == (Stage.ATTENTION, *STAGES)
    assert lane_of(Stage.ATTENTION) == "compute"


@pytest.mark.parametrize("order", ORDERS)
def test_attention_opens_a_layer_behind_the_merge_that_closed_the_one_before(order: Order) -> None:
    schedule = for_variant(replace(VARIANT, order=order), WITH)
    for op in schedule.ops:
        reads = [schedule.ops[read] for read in op.after]
        if op.stage == Stage.ATTENTION and op.layer == 1:
            assert [(read.stage, read.layer, read.ubatch) for read in reads] == [(Stage.MERGE, 0, op.ubatch)]
        if op.stage == Stage.ROUTE:
            assert [read.stage for read in reads] == [Stage.ATTENTION]


@pytest.mark.parametrize("order", ["yield_after", "yield_before", "sglang_prefill"])
def test_attention_begins_in_the_turn_of_that_merge(order: Order) -> None:
    schedule = for_variant(replace(VARIANT, order=order), WITH)
    for position, op in enumerate(schedule.ops):
        if op.stage == Stage.ATTENTION and op.layer == 1:
            assert op.after == (position - 1,)
    plain = for_variant(replace(VARIANT, order=order), PLAIN)
    assert len(schedule.hand_overs) == len(plain.hand_overs)


@pytest.mark.parametrize("order", ORDERS)
def test_attention_of_the_next_layer_runs_beside_the_other_halfs_combine(order: Order) -> None:
    # compute: 0-10 10-20 | 30-40 40-50; comm: combine 20-30 30-40 | 50-60 60-70. Serial: 80.
    # sglang_decode issues combine 0 before attention 1. compute: 0-10 10-20 20-30 30-40; comm: 10-20 .. 40-50.
    at_once = order == "sglang_decode"
    schedule = for_variant(replace(VARIANT, order=order), WITH)
    assert makespan_s(schedule, seconds(schedule, attention=10, combine=10)) == pytest.approx(50 if at_once else 70)
    one_layer = for_variant(replace(VARIANT, order=order), replace(WITH, layers=1))
    found_s = makespan_s(one_layer, seconds(one_layer, attention=10, combine=10))
    assert found_s == pytest.approx(30 if at_once else 40), "nothing beside it but where it comes first"


@pytest.mark.parametrize("order", ORDERS)
def test_attention_of_one_half_runs_beside_the_others_dispatch(order: Order) -> None:
    # yield_after issues dispatch 0 before attention 1: compute 0-10 10-20, comm 10-20 20-30.
    # sglang_decode issues experts 0 before attention 1, and they wait for dispatch 0: nothing is beside it.
    schedule = for_variant(replace(VARIANT, order=order), replace(WITH, layers=1))
    expected_s = 40 if order == "sglang_decode" else 30
    assert makespan_s(schedule, seconds(schedule, attention=10, dispatch=10)) == pytest.approx(expected_s)
