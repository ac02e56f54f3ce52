"""Order fuzzing: whatever delays an op, the answer is that of one lane; and each needed edge, left out, is missed.

CI draws some of the schedules; ``BENCH_SOAK=1`` (``make soak``) goes through all of them.
"""

import os
import random
from itertools import product

import pytest
import torch
from fuzzed_lanes import FuzzedLanes, draw_delays, longest_op_s, run_fuzzed
from order_of_ops import ancestors, edges_across, needed_edges
from plain_schedule import build
from small_layer import PACED, Built
from torch import Tensor
from whole_layers import KINDS

from moe_impl.options import DEFAULT_ORDER, Engine, Order, Receive, Variant
from moe_impl.overlap.schedule import ORDERS, for_variant
from moe_impl.overlap.threads import OpFailedError
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

SOAK = os.environ.get("BENCH_SOAK") == "1"
RUNS = 200 if SOAK else 40
TRIES = 400
"""One in ten finds the edge that is hardest to miss; only a test that fails takes all of them."""
Chosen = tuple[str, Receive, int, Order]
"""Kind of workload, receive, split factor, order."""
ALL: list[Chosen] = list(product(KINDS, ("worst_case", "exact"), (2, 3), ORDERS))  # type: ignore[arg-type]
SOME: list[Chosen] = [
    *(("shared", "worst_case", 2, order) for order in ORDERS),
    ("everything", "worst_case", 2, "yield_after"),
    ("plain", "exact", 2, "yield_before"),
]
SCHEDULES = pytest.mark.parametrize(("kind", "receive", "split_factor", "order"), ALL if SOAK else SOME)


def variant(receive: Receive, split_factor: int, order: Order, engine: Engine = "streams") -> Variant:
    return Variant("torch", engine=engine, split_factor=split_factor, receive=receive, order=order)


class Fuzz:
    """One variant, run again and again under other delays."""

    def __init__(self, built: Built, chosen: Variant) -> None:
        self.expected = built.run(chosen.split_serial())()
        self.run = built.run(chosen)
        self.longest_s = longest_op_s(self.run)
        self.draw = random.Random(f"{chosen.label} {built.work}")

    def once(self, *without: tuple[int, int]) -> Tensor:
        schedule = self.run.schedule
        delays_s = draw_delays(schedule, self.longest_s, self.draw)
        return run_fuzzed(self.run, FuzzedLanes(schedule, delays_s, self.longest_s, frozenset(without)))

    def misses(self, edge: tuple[int, int]) -> bool:
        """Whether one run without this edge gives something else, or nothing."""
        try:
            return not torch.equal(self.once(edge), self.expected)
        except (AssertionError, AttributeError, TypeError, IndexError, RuntimeError):  # what is not there yet
            return True


@SCHEDULES
def test_every_needed_edge_that_is_left_out_is_missed(
    kind: str, receive: Receive, split_factor: int, order: Order
) -> None:
    fuzz = Fuzz(Built(KINDS[kind]), variant(receive, split_factor, order))
    ops = fuzz.run.schedule.ops
    for edge in needed_edges(fuzz.run.schedule):
        missed = any(fuzz.misses(edge) for _ in range(TRIES))
        assert missed, f"{ops[edge[1]]} need not wait for {ops[edge[0]]}"


@pytest.mark.parametrize("engine", ["streams", "threads"])
@pytest.mark.parametrize(
    ("receive", "order"),
    list(product(("worst_case", "exact"), ORDERS))
    if SOAK
    else [("worst_case", "yield_after"), ("exact", "sglang_decode")],
)
def test_no_delay_changes_the_answer(receive: Receive, order: Order, engine: Engine) -> None:
    fuzz = Fuzz(Built(KINDS["everything"]), variant(receive, 2, order, engine))
    for _ in range(RUNS):
        assert torch.equal(fuzz.once(), fuzz.expected)


def test_nor_with_more_micro_batches_over_a_paced_link() -> None:
    fuzz = Fuzz(Built(KINDS["shared"], PACED), variant("worst_case", 4, "vllm"))
    for _ in range(RUNS // 8):
        assert torch.equal(fuzz.once(), fuzz.expected)


def test_an_edge_that_is_not_needed_orders_nothing_that_others_do_not() -> None:
    """And between two micro-batches without a host wait there is none: streams wait for nothing in vain."""
    for kind, receive, split_factor, order in ALL:
        schedule = for_variant(variant(receive, split_factor, order), KINDS[kind])
        vain = frozenset(edges_across(schedule)) - frozenset(needed_edges(schedule))
        assert not vain or receive == "exact" or split_factor > 2
        assert ancestors(schedule, vain) == ancestors(schedule)


def test_a_host_that_learned_its_counts_orders_what_it_issues_then() -> None:
    """Order yield_after: the host issues permute 0 when dispatch 1 begins, so dispatch 0 is over."""
    by_receive = {receive: build(1, 2, "yield_after", receive) for receive in ("worst_case", "exact")}
    crossing = {
        receive: {(str(schedule.ops[a]), str(schedule.ops[b])) for a, b in needed_edges(schedule)}
        for receive, schedule in by_receive.items()
    }
    assert crossing["worst_case"] - crossing["exact"] == {("layer 0 ubatch 0 dispatch", "layer 0 ubatch 0 permute")}


@pytest.mark.parametrize("engine", ["streams", "threads"])
def test_a_raise_on_a_lane_reaches_the_caller(engine: Engine) -> None:
    """Not where it is issued: there nothing has run yet."""
    built = Built(KINDS["plain"])
    fuzz = Fuzz(built, variant("worst_case", 2, DEFAULT_ORDER["worst_case"], engine))

    def failing(state: UbatchState, layer: int) -> None:
        raise ValueError("made up")

    built.stages.bodies[Stage.COMBINE] = failing
    with pytest.raises(ValueError, match="made up"):
        fuzz.once()


def test_threads_that_issue_into_lanes_still_name_the_op_that_cannot_be_issued() -> None:
    fuzz = Fuzz(Built(KINDS["plain"]), variant("worst_case", 2, "yield_after", "threads"))
    del fuzz.run._stages.bodies[Stage.GEMM2]
    with pytest.raises(OpFailedError, match="layer 0 ubatch 0 gemm2: KeyError"):
        fuzz.once()
