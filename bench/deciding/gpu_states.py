"""What the GPU said of itself beside a case's rounds: clock, power, temperature, and how often it was slowed down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.deciding import join
from bench.results import Trial
from bench.telemetry import GpuState


@dataclass(frozen=True)
class Spread:
    """Of one quantity."""

    lowest: float
    median: float
    highest: float


@dataclass(frozen=True)
class GpuStates:
    """Over all moments of all passes of a case; None where the GPU did not say."""

    moments: int
    sm_clock_hz: Spread | None
    power_w: Spread | None
    temperature_c: Spread | None
    slowed_down: float | None
    """Share of the moments with a reason that slows the GPU down."""
    reasons: tuple[str, ...]
    """Which reasons there were, each once."""


def gpu_states(passes: Sequence[Trial]) -> GpuStates | None:
    """Of one case; None where nobody was asked."""
    moments = [state for trial in passes for state in trial.telemetry]
    if not moments:
        return None
    told = [state.throttled_by for state in moments if state.throttled_by is not None]
    return GpuStates(
        moments=len(moments),
        sm_clock_hz=_spread(moments, lambda state: state.sm_clock_hz),
        power_w=_spread(moments, lambda state: state.power_w),
        temperature_c=_spread(moments, lambda state: state.temperature_c),
        slowed_down=sum(map(bool, told)) / len(told) if told else None,
        reasons=join.distinct(told),
    )


def _spread(moments: Sequence[GpuState], quantity: Callable[[GpuState], float | None]) -> Spread | None:
    known = [value for value in map(quantity, moments) if value is not None]
    return Spread(min(known), median(known), max(known)) if known else None
