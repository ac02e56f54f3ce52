"""What a GPU says of itself through NVML: clock, power, temperature, and what slows it down. Torch-free.

Wall time decides; this explains. NVML is asked between rounds, never inside a sample, since an answer takes it
milliseconds. What came and went within a round is therefore not seen.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

THROTTLING = ("SwPowerCap", "HwSlowdown", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")
"""NVML's reasons that slow a GPU down, as the ends of its constants' names."""
SLOWED = "slowed down by"
"""The doubt of every variant that was timed in a round next to such a reason."""


@dataclass(frozen=True)
class GpuState:
    """At one moment; None = the GPU does not say."""

    sm_clock_hz: float | None
    power_w: float | None
    temperature_c: float | None
    throttled_by: tuple[str, ...] | None
    """Of THROTTLING; empty = nothing slows it down."""


class NvmlSilentError(Exception):
    """Nobody can be asked; the message says why."""


class Gpu:
    """One GPU, to be asked."""

    def __init__(self, uuid: str, nvml: Any = None) -> None:
        """
        Args:
            uuid: with or without ``GPU-``; an index would not survive CUDA_VISIBLE_DEVICES.
            nvml: pynvml, or what stands for it.

        Raises:
            ImportError: nvidia-ml-py is not installed.
            NvmlSilentError: no driver, or no such GPU.
        """
        nvml = importlib.import_module("pynvml") if nvml is None else nvml
        self.nvml = nvml
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")
        except (nvml.NVMLError, TypeError) as error:
            raise NvmlSilentError(f"NVML does not answer: {error}") from error

    def ask(self, question: str, *about: Any) -> Any:
        """What ``nvmlDeviceGet<question>`` returns; None where this driver, GPU or pynvml does not know."""
        try:
            return getattr(self.nvml, f"nvmlDeviceGet{question}")(self._handle, *about)
        except (self.nvml.NVMLError, AttributeError):
            return None

    def sm_clock_max_hz(self) -> float | None:
        return _times(self.ask("MaxClockInfo", self.nvml.NVML_CLOCK_SM), 1e6)

    def now(self) -> GpuState:
        return GpuState(
            sm_clock_hz=_times(self.ask("ClockInfo", self.nvml.NVML_CLOCK_SM), 1e6),
            power_w=_times(self.ask("PowerUsage"), 1e-3),
            temperature_c=_times(self.ask("Temperature", self.nvml.NVML_TEMPERATURE_GPU), 1.0),
            throttled_by=self._throttled_by(),
        )

    def _throttled_by(self) -> tuple[str, ...] | None:
        bits = self.ask("CurrentClocksThrottleReasons")
        if bits is None:
            return None
        return tuple(name for name in THROTTLING if bits & getattr(self.nvml, f"nvmlClocksThrottleReason{name}", 0))


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def watching(uuid: str | None, nvml: Any = None) -> Callable[[], GpuState | None]:
    """Asks the GPU of this uuid for its state; answers None where there is no GPU, no nvidia-ml-py or no answer."""
    if uuid is None:
        return lambda: None
    try:
        return Gpu(uuid, nvml).now
    except (ImportError, NvmlSilentError):
        return lambda: None


def slowed(of_ranks: Sequence[Sequence[GpuState]]) -> list[str]:
    """A doubt for each reason that slowed some rank's GPU down: ``slowed down by SwPowerCap: before or after round 2``.

    Args:
        of_ranks: each rank's states before the first round and after every round.
    """
    rounds: dict[str, set[int]] = {}
    for states in of_ranks:
        for place, state in enumerate(states):
            for reason in state.throttled_by or ():
                # a reason between two rounds stands next to both
                beside = {place, place + 1} & set(range(1, len(states)))
                rounds.setdefault(reason, set()).update(beside)
    return [
        f"{SLOWED} {reason}: next to round {', '.join(map(str, sorted(rounds[reason])))}"
        for reason in THROTTLING
        if rounds.get(reason)
    ]
