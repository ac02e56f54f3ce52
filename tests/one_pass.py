"""One pass of the torch half in this process, and a way to break a variant of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.cases import Case
from bench.environment import describe
from bench.measure.timer import HostTimer
from bench.pass_context import PassContext
from bench.pass_runner import CaseRun
from bench.results import ExpertsChoice, Measurement, Trial
from bench.running import progress_file
from bench.running.messages import Event, JobCase, Step
from bench.settings import MeasureSettings
from bench.targets import Target, Targets
from bench.telemetry import GpuState
from moe_impl.options import Variant
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import VariantRun

CPU = torch.device("cpu")
SETTINGS = MeasureSettings(rounds=2, round_min_s=0.0, warm_up_s=0.0)


class Pass:
    """A pass over one case on this CPU; ``events`` and ``position`` are what a supervisor would see."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Event] = []
        self.progress = folder / "progress"
        progress_file.reset(self.progress)

    def run(
        self,
        case: Case,
        settled: tuple[Measurement, ...] = (),
        settings: MeasureSettings = SETTINGS,
        gpu_now: Callable[[], GpuState | None] = lambda: None,
        experts_choice: ExpertsChoice | None = None,
    ) -> Trial:
        writer, tell = progress_file.ProgressFile(self.progress), self.events.append
        context = PassContext(4, settings, CPU, describe(CPU), Targets(CPU), HostTimer(), writer, tell, gpu_now=gpu_now)
        return CaseRun.of(context, JobCase(case, settled, experts_choice)).trial()

    @property
    def steps(self) -> list[Step]:
        return [event for event in self.events if isinstance(event, Step)]


Merge = Callable[[UbatchState, int], None]


def replace_merge(monkeypatch: pytest.MonkeyPatch, role: str, wrapped: Callable[[Merge], Merge]) -> None:
    """Of the variants of one role only."""
    build = Target.run

    def run(self: Target, variant: Variant, progress: Callable[[int], None]) -> VariantRun:
        made = build(self, variant, progress)
        if variant.role == role:
            bodies = made._stages.bodies
            bodies[Stage.MERGE] = wrapped(bodies[Stage.MERGE])
        return made

    monkeypatch.setattr(Target, "run", run)


def by_role(trial: Trial) -> dict[str, Measurement]:
    return {m.role: m for m in trial.measurements}
