"""What all cases of a pass share, and how one of them ends the pass."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench.measure.peers import ALONE, Peers
from bench.measure.timer import Timer
from bench.running.messages import Event, Phase
from bench.running.progress_file import ProgressFile
from bench.settings import MeasureSettings
from bench.targets import Targets
from bench.telemetry import GpuState
from moe_impl.options import Machine


class CaseFailureError(Exception):
    """Something raised (its ``__cause__``) while a case was under way."""

    def __init__(self, phase: Phase, variant_id: str | None) -> None:
        super().__init__(phase, variant_id)
        self.phase: Phase = phase
        self.variant_id = variant_id


@dataclass(frozen=True)
class PassContext:
    """What all cases of a pass share."""

    pass_index: int
    settings: MeasureSettings
    device: torch.device
    machine: Machine
    targets: Targets
    timer: Timer
    progress: ProgressFile
    tell: Callable[[Event], None]
    peers: Peers = ALONE
    """What decides which collective comes next is asked here, never of one rank alone."""
    gpu_now: Callable[[], GpuState | None] = lambda: None
    """This rank's GPU's state; None without one, and where NVML is silent."""

    @property
    def flushes(self) -> bool:
        """Whether samples begin with a cold L2 cache: a GPU's alone can be emptied."""
        return self.settings.cold_l2 and self.device.type == "cuda"

    @property
    def last_pass(self) -> bool:
        return self.pass_index == self.settings.passes - 1

    @property
    def cross_checks(self) -> bool:
        """Whether the timer is checked against a profiler: in the last pass, for a profiler may slow what follows."""
        return self.settings.cross_check and self.last_pass and self.device.type == "cuda"
