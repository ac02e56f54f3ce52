"""Makespans computed by hand, and what holds for all of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_schedule import build

from moe_impl.overlap.makespan import makespan_s
from moe_impl.overlap.schedule import ORDERS, Op, Schedule
from moe_impl.stages import Stage

# Two micro-batches: route (compute), dispatch (comm), gemm1 (compute), each after the one before it.
TWO = Schedule(
    (
        Op(0, 0, Stage.ROUTE, "compute"),
        Op(0, 0, Stage.DISPATCH, "comm", (0,)),
        Op(0, 1, Stage.ROUTE, "compute"),
        Op(0, 0, Stage.GEMM1, "compute", (1,)),
        Op(0, 1, Stage.DISPATCH, "comm", (2,)),
        Op(0, 1, Stage.GEMM1, "compute", (4,)),
    ),
    layers=1,
    num_ubatches=2,
)
TWO_S = (1.0, 3.0, 1.0, 2.0, 1.0, 2.0)


def test_two_micro_batches_overlap_as_computed_by_hand() -> None:
    # compute: route 0-1, route 1-2, gemm1 4-6, gemm1 6-8; comm: dispatch 1-4, dispatch 4-5
    assert makespan_s(TWO, TWO_S) == pytest.approx(8.0)


def test_compute_runs_slower_only_while_comm_is_busy() -> None:
    # compute at half speed: route 0-1 (alone), route 1-3, gemm1 4-6.5 (half a second's work until 5), gemm1 6.5-8.5
    assert makespan_s(TWO, TWO_S, compute_rate=0.5) == pytest.approx(8.5)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1e-9])
def test_a_duration_that_is_none_is_refused(seconds: float) -> None:
    """Such an op would never end, and the loop neither."""
    with pytest.raises(ValueError, match="cannot take"):
        makespan_s(TWO, (*TWO_S[:3], seconds, *TWO_S[4:]))


def test_a_chain_cannot_overlap() -> None:
    schedule = build(2, 1, "yield_after")
    op_s = [0.1 * (position + 1) for position in range(len(schedule.ops))]
    assert makespan_s(schedule, op_s) == pytest.approx(sum(op_s))
    assert makespan_s(schedule, op_s, compute_rate=0.3) == pytest.approx(sum(op_s))


def test_ops_that_take_no_time_are_passed_at_once() -> None:
    assert makespan_s(TWO, [0.0] * 6) == 0.0
    assert makespan_s(TWO, (1.0, 0.0, 1.0, 2.0, 0.0, 2.0)) == pytest.approx(6.0)


def test_an_op_waits_for_its_lane_in_issue_order() -> None:
    ready_later_but_issued_first = Schedule(
        (
            Op(0, 0, Stage.DISPATCH, "comm"),
            Op(0, 0, Stage.GEMM1, "compute", (0,)),
            Op(0, 1, Stage.ROUTE, "compute"),
        ),
        layers=1,
        num_ubatches=2,
    )
    assert makespan_s(ready_later_but_issued_first, (5.0, 1.0, 2.0)) == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("op_s", "rate", "message"),
    [
        (TWO_S[:5], 1.0, "5 durations for 6 ops"),
        (TWO_S, 0.0, "compute_rate must lie in"),
        (TWO_S, 1.1, "compute_rate must lie in"),
    ],
)
def test_wrong_arguments_are_refused(op_s: tuple[float, ...], rate: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        makespan_s(TWO, op_s, rate)


def test_a_schedule_that_waits_for_itself_is_refused() -> None:
    circle = Schedule((Op(0, 0, Stage.ROUTE, "compute", (1,)), Op(0, 0, Stage.GEMM1, "compute")), 1, 1)
    with pytest.raises(ValueError, match="waits for itself"):
        makespan_s(circle, (1.0, 1.0))


@given(data=st.data(), layers=st.integers(1, 2), num_ubatches=st.integers(1, 3), order=st.sampled_from(ORDERS))
def test_a_makespan_lies_between_the_busier_lane_and_the_sum_and_never_falls_when_an_op_gets_longer(
    data: st.DataObject, layers: int, num_ubatches: int, order: str
) -> None:
    schedule = build(layers, num_ubatches, order)
    seconds = st.floats(0, 10, allow_subnormal=False)
    op_s = data.draw(st.lists(seconds, min_size=len(schedule.ops), max_size=len(schedule.ops)))
    found_s = makespan_s(schedule, op_s)
    lane_s = {"compute": 0.0, "comm": 0.0}
    for op, duration_s in zip(schedule.ops, op_s, strict=True):
        lane_s[op.lane] += duration_s
    slack = 1e-6 * (1 + sum(op_s))
    assert max(lane_s.values()) - slack <= found_s <= sum(op_s) + slack

    longer = list(op_s)
    longer[data.draw(st.integers(0, len(op_s) - 1))] += data.draw(seconds)
    assert makespan_s(schedule, longer) >= found_s - slack

    rate = data.draw(st.floats(0.1, 1))
    assert found_s - slack <= makespan_s(schedule, op_s, rate) <= sum(op_s) / rate + slack


def test_the_host_issues_nothing_while_a_dispatch_holds_it() -> None:
    """Order yield_after puts each dispatch before the other batch's compute: held, compute starts late."""
    free, held = (build(1, 2, "yield_after", receive) for receive in ("worst_case", "exact"))
    assert held.host_waits == {i for i, op in enumerate(held.ops) if op.stage == Stage.DISPATCH}
    seconds = [1.0] * len(free.ops)
    # route 0 | dispatch 0 runs beside route 1, | dispatch 1 holds the host until dispatch 0 is over.
    assert makespan_s(held, seconds) >= makespan_s(free, seconds)
    long_dispatch = [10.0 if op.stage == Stage.DISPATCH and op.ubatch == 0 else 1.0 for op in free.ops]
    slow_route = [5.0 if op.stage == Stage.ROUTE and op.ubatch == 0 else 1.0 for op in free.ops]
    assert makespan_s(held, slow_route) == makespan_s(free, slow_route), "route 1 follows route 0 anyway"
    assert makespan_s(held, long_dispatch) == makespan_s(free, long_dispatch), "nothing is ready before dispatch 0 ends"


def test_compute_that_is_issued_behind_a_held_dispatch_waits_for_it() -> None:
    route_0, route_1 = (Op(0, ubatch, Stage.ROUTE, "compute") for ubatch in (0, 1))
    before = Op(0, 2, Stage.DISPATCH, "comm")
    dispatch = Op(0, 0, Stage.DISPATCH, "comm", after=(0,))
    ops = (route_0, before, dispatch, route_1)
    seconds = [1.0, 7.0, 1.0, 1.0]
    assert makespan_s(Schedule(ops, 1, 3), seconds) == 8.0
    held = Schedule(ops, 1, 3, host_waits=frozenset({2}))
    assert makespan_s(held, seconds) == 8.0
    assert makespan_s(Schedule((*ops, Op(0, 3, Stage.MERGE, "compute", after=(3,))), 1, 4), [*seconds, 5.0]) == 8.0
    late = Schedule((*ops, Op(0, 3, Stage.MERGE, "compute", after=(3,))), 1, 4, host_waits=frozenset({2}))
    assert makespan_s(late, [*seconds, 5.0]) == 7.0 + 1.0 + 5.0, "route 1 is issued only when dispatch starts, at 7"
