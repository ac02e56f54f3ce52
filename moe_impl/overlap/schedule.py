"""The order in which stages are issued, as a plain list of Ops. Torch-free.

One list serves four masters: the lanes run it, ``makespan`` bounds it, the report draws it, and the unsplit serial run
is the same list with one micro-batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import get_args

from moe_impl.options import DEFAULT_ORDER, Engine, Order, Receive, Variant, Workload
from moe_impl.stages import Lane, Stage, lane_of

ORDERS: tuple[Order, ...] = get_args(Order)
ALL_STAGES = tuple(Stage)


def chain(workload: Workload) -> tuple[Stage, ...]:
    """The stages of one of this workload's layers, in the order in which a micro-batch passes them."""
    left_out = set()
    if not workload.quantizes:
        left_out.add(Stage.QUANTIZE)
    if not workload.model.shared_experts:
        left_out.add(Stage.SHARED)
    if workload.attention is None:
        left_out.add(Stage.ATTENTION)
    stages = [stage for stage in ALL_STAGES if stage not in left_out]
    if workload.quantizes and workload.dispatch_dtype == "bf16":
        stages.remove(Stage.QUANTIZE)
        stages.insert(stages.index(Stage.PERMUTE), Stage.QUANTIZE)
    return tuple(stages)


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

    @cached_property
    def lanes(self) -> Mapping[Lane, tuple[int, ...]]:
        """Lane -> positions of its ops, for those that have any."""
        lanes: dict[Lane, tuple[int, ...]] = {}
        for position, op in enumerate(self.ops):
            lanes[op.lane] = (*lanes.get(op.lane, ()), position)
        return lanes

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


PHASE_OFFSET: Mapping[Order, int] = {"sglang_decode": 2, "vllm": 1}
"""Segments by which each micro-batch begins later than the one before it; none in the other orders."""


def segments(order: Order, stages: Sequence[Stage], layers: int) -> list[list[tuple[int, Stage]]]:
    """One micro-batch's (layer, stage) chain, cut where it hands over to the next micro-batch.

    A layer's last segment goes on into the next layer's first. An empty one takes a turn all the same: an engine does
    something there that is no op of its own here, as a transfer and attention are one op each (docs/ENGINES.md).
    """
    cuts: list[list[tuple[int, Stage]]] = [[]]
    for layer in range(layers):
        first, *others = ([(layer, stage) for stage in segment] for segment in _layer_segments(order, stages))
        cuts[-1] += first
        cuts += others
    return cuts


def _layer_segments(order: Order, stages: Sequence[Stage]) -> list[list[Stage]]:
    """Where one layer is cut, by name.

    ``yield_after`` hands over after dispatch and after combine: communication is issued first, then the other batch's
    compute. ``yield_before`` does before them: compute is queued before a dispatch that may block the host. Both are
    FastDeploy's (``DEFAULT_ORDER``). ``sglang_prefill`` and ``sglang_decode`` are SGLang's for DeepSeek
    (``operations_strategy.py``), ``vllm`` is vLLM's (its ``docs/design/dbo.md``).
    """
    out, back = stages.index(Stage.DISPATCH), stages.index(Stage.COMBINE)
    before, after = list(stages[:out]), list(stages[back + 1 :])
    dispatch, combine = list(stages[out : out + 1]), list(stages[back : back + 1])
    shared = [stage for stage in stages[out:back] if stage is Stage.SHARED]
    experts = [stage for stage in stages[out + 1 : back] if stage not in shared]
    match order:
        case "yield_before":
            return [before, dispatch + shared + experts, combine + after]
        case "yield_after":
            return [before + dispatch, shared + experts + combine, after]
        case "sglang_prefill":
            return [before + dispatch, experts + combine, shared + after]
        case "sglang_decode":  # empty: attention's projections; combine's receive hook
            return [[], before, dispatch + shared, experts + combine, [], after]
        case "vllm":  # empty: dispatch's receive hook; the last, so that merge hands over, too
            return [before, dispatch, [], experts, combine + shared, after, []]


def build(
    stages: Sequence[Stage], layers: int, num_ubatches: int, order: Order, receive: Receive = "worst_case"
) -> Schedule:
    """Let micro-batches take turns, one segment each, as FastDeploy's two host threads do.

    Args:
        stages: of one layer (:func:`chain`).
    """
    ops: list[Op] = []
    inputs = {ubatch: _Inputs() for ubatch in range(num_ubatches)}
    cuts, offset = segments(order, stages, layers), PHASE_OFFSET.get(order, 0)
    for turn in range(len(cuts) + offset * (num_ubatches - 1)):
        for ubatch in range(num_ubatches):
            begun = turn - offset * ubatch
            for layer, stage in cuts[begun] if 0 <= begun < len(cuts) else ():
                after = inputs[ubatch].of(stage, position=len(ops))
                ops.append(Op(layer, ubatch, stage, lane_of(stage), after))
    waits = (position for position, op in enumerate(ops) if receive == "exact" and op.stage == Stage.DISPATCH)
    return Schedule(tuple(ops), layers, num_ubatches, order, frozenset(waits))


class _Inputs:
    """Which ops of one micro-batch the next one reads: the one before, as a rule."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._before_dispatch: int | None = None
        self._shared: int | None = None

    def of(self, stage: Stage, position: int) -> tuple[int, ...]:
        """Positions of the ops whose results the op at ``position`` reads."""
        if stage == Stage.SHARED:  # beside dispatch: it reads what dispatch reads, and merge reads it
            self._shared = position
            return _known(self._before_dispatch)
        if stage == Stage.DISPATCH:
            self._before_dispatch = self._last
        after = _known(self._last)
        if stage == Stage.MERGE:
            after, self._shared = (*_known(self._shared), *after), None
        self._last = position
        return after


def _known(position: int | None) -> tuple[int, ...]:
    return () if position is None else (position,)


def for_variant(variant: Variant, workload: Workload) -> Schedule:
    """The schedule a variant runs; ``serial`` runs the same list on one lane. Equal ones are one object."""
    return _built(chain(workload), workload.layers, variant.split_factor, variant.order, variant.receive)


_built = lru_cache(maxsize=1024)(build)
