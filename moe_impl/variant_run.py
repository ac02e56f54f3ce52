"""One variant of a workload, ready to run: its schedule, its lanes and the stage bodies they issue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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

    x_TH: Tensor
    y_TH: Tensor


def lanes_for(variant: Variant, schedule: Schedule, device: torch.device) -> Lanes:
    """Two streams where the variant overlaps and the device can, else one lane. On a CPU the order is all there is."""
    if variant.engine == "serial" or device.type != "cuda":
        return OneLane()
    from moe_impl.overlap.cuda_lanes import StreamLanes

    return StreamLanes(schedule, torch.cuda.current_stream(device))


class VariantRun:
    """Callable: one iteration over all layers, issued on the caller's current stream (compute lane)."""

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
        self._progress = progress

    def __call__(self, around: Around | None = None) -> Tensor:
        """Run all layers; returns the last layer's next x, bf16 [T, H] (one copy for a split batch, none unsplit)."""
        return self._final(self._run(self._stages.bodies, around))

    def traced(self) -> tuple[Tensor, list[LayerTrace]]:
        """The same run, keeping each layer's input and output."""
        kept: dict[int, list[tuple[Tensor, Tensor]]] = {}
        merge = self._stages.bodies[Stage.MERGE]

        def keeping_merge(state: UbatchState, layer: int) -> None:
            x_TH = state.x_TH
            merge(state, layer)
            assert state.y_TH is not None
            kept.setdefault(layer, []).append((x_TH, state.y_TH))

        states = self._run({**self._stages.bodies, Stage.MERGE: keeping_merge}, None)
        traces = [
            LayerTrace(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
            for _, parts in sorted(kept.items())
        ]
        return self._final(states), traces

    def _run(self, bodies: dict[Stage, StageBody], around: Around | None) -> list[UbatchState]:
        states = self._stages.start(self._slices, self._room, self._learned)
        self._drive(Run(self.schedule, bodies, states, self._lanes, self._progress, around))
        return states

    @staticmethod
    def _final(states: list[UbatchState]) -> Tensor:
        return states[0].x_TH if len(states) == 1 else torch.cat([state.x_TH for state in states])
