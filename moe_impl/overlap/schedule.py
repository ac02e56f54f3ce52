"""The order in which stages are issued, as a plain list of Ops. Torch-free.

One list serves four masters: the lanes run it, ``makespan`` bounds it, the report draws it, and the unsplit serial run
is the same list with one micro-batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import get_args

from moe_impl.options import DEFAULT_ORDER, Engine, Order, Receive, Variant
from moe_impl.stages import Lane, Stage, lane_of

ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True)
class Op:
    """One stage of one micro-batch in one layer."""

    layer: int
    ubatch: int
    stage: Stage
    lane: Lane
    after: tuple[int, ...] = ()
    """Positions in the schedule of the ops whose results this one reads."""

    def __str__(self) -> str:
        return f"layer {self.layer} ubatch {self.ubatch} {self.stage}"


@dataclass(frozen=True)
class Schedule:
    """Ops in issue order. A lane runs its ops in that order; across lanes only ``after`` holds."""

    ops: tuple[Op, ...]
    layers: int
    num_ubatches: int
    order: Order = field(default=DEFAULT_ORDER["worst_case"])
    host_waits: frozenset[int] = frozenset()
    """Positions of ops that hold the host until their inputs are there (a dispatch whose counts it must learn): nothing
    later in the list is issued before they start."""

    @cached_property
    def hand_overs(self) -> Mapping[int, int]:
        """Position of an op after which its micro-batch hands over -> the micro-batch whose turn is next."""
        return {
            position: taker.ubatch
            for position, (giver, taker) in enumerate(pairwise(self.ops))
            if giver.ubatch != taker.ubatch
        }

    @cached_property
    def chains(self) -> Mapping[int, tuple[int, ...]]:
        """Micro-batch -> positions of its ops, for those that have any."""
        chains: dict[int, tuple[int, ...]] = {}
        for position, op in enumerate(self.ops):
            chains[op.ubatch] = (*chains.get(op.ubatch, ()), position)
        return chains

    def drawn(self, engine: Engine = "streams") -> str:
        """Text lanes, such as ``Comp: |route 0.0|`` over ``Comm: |dispatch 0.0|`` (layer.ubatch).

        ``serial`` has one lane; under ``threads`` a line above them says whose thread issues, up to each hand-over.
        """
        cells = [f"{op.stage} {op.layer}.{op.ubatch}|" for op in self.ops]
        if engine == "serial":
            return "".join(["One:  |", *cells])
        lanes = {"compute": "Comp: |", "comm": "Comm: |"}
        host, turn = "Host: |", ""
        for position, (op, cell) in enumerate(zip(self.ops, cells, strict=True)):
            for lane in lanes:
                lanes[lane] += cell if lane == op.lane else " " * (len(cell) - 1) + "|"
            turn += " " * len(cell)
            if position in self.hand_overs or position == len(self.ops) - 1:
                host, turn = host + f"thread {op.ubatch}".ljust(len(turn) - 1) + "|", ""
        return "\n".join([*([host] if engine == "threads" else []), *lanes.values()])


def segments(order: Order, layers: int) -> list[list[tuple[int, Stage]]]:
    """One micro-batch's (layer, stage) chain, cut where it hands over to the next micro-batch.

    ``yield_after`` cuts after dispatch and after combine: communication is issued first, then the other batch's
    compute. ``yield_before`` cuts before them: compute is queued before a dispatch that may block the host.
    """
    cuts: list[list[tuple[int, Stage]]] = [[]]
    for layer in range(layers):
        for stage in Stage:
            hands_over = stage in (Stage.DISPATCH, Stage.COMBINE)
            if hands_over and order == "yield_before":
                cuts.append([])
            cuts[-1].append((layer, stage))
            if hands_over and order == "yield_after":
                cuts.append([])
    return cuts


def build(layers: int, num_ubatches: int, order: Order, receive: Receive = "worst_case") -> Schedule:
    """Let micro-batches take turns, one segment each, as FastDeploy's two host threads do."""
    ops: list[Op] = []
    last: dict[int, int] = {}  # micro-batch -> its latest op: within a micro-batch every stage reads the one before
    for segment in segments(order, layers):
        for ubatch in range(num_ubatches):
            for layer, stage in segment:
                after = (last[ubatch],) if ubatch in last else ()
                last[ubatch] = len(ops)
                ops.append(Op(layer, ubatch, stage, lane_of(stage), after))
    waits = (position for position, op in enumerate(ops) if receive == "exact" and op.stage == Stage.DISPATCH)
    return Schedule(tuple(ops), layers, num_ubatches, order, frozenset(waits))


def for_variant(variant: Variant, layers: int) -> Schedule:
    """The schedule a variant runs; ``serial`` runs the same list on one lane."""
    return build(layers, variant.split_factor, variant.order, variant.receive)
