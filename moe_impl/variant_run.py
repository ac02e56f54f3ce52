"""One variant of a workload, ready to run: its schedule, its lanes and the stage bodies they issue."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from moe_impl.carve_out import leaving_free
from moe_impl.layer import MoeStages
from moe_impl.options import Engine, Variant
from moe_impl.overlap.driver import Around, Run, StageBody, run_inline
from moe_impl.overlap.lanes import Lanes, OneLane
from moe_impl.overlap.schedule import Schedule, for_variant
from moe_impl.overlap.threads import run_threads
from moe_impl.split import as_run, room, token_slices
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

DRIVERS: Mapping[Engine, Callable[[Run], None]] = {
    "serial": run_inline,
    "threads": run_threads,
    "streams": run_inline,
}
"""Who issues an engine's schedule."""


@dataclass(frozen=True)
class LayerTrace:
    """What entered and left one layer in one run, all tokens: what the oracle is asked about."""

    before_TH: Tensor
    """The layer's input."""
    x_TH: Tensor
    """The MoE's: the same, or what attention made of it."""
    y_TH: Tensor
    next_TH: Tensor
    """The next layer's input."""


def lanes_for(variant: Variant, schedule: Schedule, device: torch.device) -> Lanes:
    """Two streams where the variant overlaps and the device can, else one lane. On a CPU the order is all there is."""
    if variant.engine == "serial" or device.type != "cuda":
        return OneLane()
    from moe_impl.overlap.cuda_lanes import StreamLanes

    return StreamLanes(schedule, torch.cuda.current_stream(device), variant.comm_priority)


class VariantRun:
    """Callable: one iteration over all layers, issued on the caller's current stream (compute lane)."""

    captured = False
    """Whether a call replays a graph (:mod:`moe_impl.captured_run`) and issues no op."""

    def __init__(self, variant: Variant, stages: MoeStages, x_TH: Tensor, progress: Callable[[int], None]) -> None:
        self.label = variant.label
        tokens = x_TH.shape[0]
        variant = as_run(variant, tokens)
        self.schedule = for_variant(variant, stages.workload)
        self._stages = stages
        self._slices = token_slices(variant, tokens, stages.rows_per_token)
        self._room = room(variant, self._slices)
        self._learned = stages.learn_rows(self._slices, self._room)
        self._lanes = lanes_for(variant, self.schedule, x_TH.device)
        self._drive = DRIVERS[variant.engine]
        self._reserve_sms = variant.reserve_sms
        self._progress = progress

    def __call__(self, around: Around | None = None) -> Tensor:
        """Run all layers; returns the last layer's next x, bf16 [T, H] (one copy for a split batch, none unsplit)."""
        return self.issue(around)

    def issue(self, around: Around | None = None) -> Tensor:
        """One iteration op by op, whatever a call does."""
        return self._final(self._run(self._stages.bodies, around))

    def ready(self) -> None:
        """Do now what only the first call would do."""

    def under(self, around: Around) -> Callable[[], Tensor]:
        """The call with these contexts around its ops."""
        return functools.partial(self, around)

    @property
    def pool_bytes(self) -> int | None:
        """Device memory that it keeps reserved between calls, for none but itself; None without a graph."""
        return None

    def traced(self) -> tuple[Tensor, list[LayerTrace]]:
        """The same run, keeping what entered and left each layer."""
        kept: dict[int, list[tuple[int, LayerTrace]]] = {}
        before: dict[tuple[int, int], Tensor] = {}  # (layer, id of the state) -> x that entered attention
        attend, merge = self._stages.bodies[Stage.ATTENTION], self._stages.bodies[Stage.MERGE]

        def keeping_attend(state: UbatchState, layer: int) -> None:
            before[layer, id(state)] = state.x_TH
            attend(state, layer)

        def keeping_merge(state: UbatchState, layer: int) -> None:
            x_TH = state.x_TH
            merge(state, layer)
            assert state.y_TH is not None
            trace = LayerTrace(before.pop((layer, id(state)), x_TH), x_TH, state.y_TH, state.x_TH)
            kept.setdefault(layer, []).append((state.tokens.start, trace))

        keeping = {Stage.ATTENTION: keeping_attend, Stage.MERGE: keeping_merge}
        states = self._run({**self._stages.bodies, **keeping}, None)
        return self._final(states), [_joined(parts) for _, parts in sorted(kept.items())]

    def _run(self, bodies: dict[Stage, StageBody], around: Around | None) -> list[UbatchState]:
        states = self._stages.start(self._slices, self._room, self._learned)
        with leaving_free(self._reserve_sms):
            self._drive(Run(self.schedule, bodies, states, self._lanes, self._progress, around))
        return states

    @staticmethod
    def _final(states: list[UbatchState]) -> Tensor:
        return states[0].x_TH if len(states) == 1 else torch.cat([state.x_TH for state in states])


def _joined(parts: list[tuple[int, LayerTrace]]) -> LayerTrace:
    """One layer's traces of all micro-batches, given with their first tokens."""
    ordered = [trace for _, trace in sorted(parts, key=lambda part: part[0])]
    return LayerTrace(*(torch.cat([getattr(trace, spec.name) for trace in ordered]) for spec in fields(LayerTrace)))
