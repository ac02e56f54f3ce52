"""What a GPU did in one iteration, as a profiler saw it: a second opinion on the timer, and what a gate counts."""

from dataclasses import dataclass

from bench import units

DISAGREE_BEYOND = 0.02
"""Timer and profiler may differ by this fraction of an iteration before the row says so."""
CROSS_CHECK = "timer and profiler disagree"
"""The doubt of such a row."""
NOT_CROSS_CHECKED = "timer not checked against a profiler"
"""The doubt of a row for which that check was asked and ended the process."""


@dataclass(frozen=True)
class DeviceWork:
    """Of a few iterations under torch.profiler, outside of the timed ones."""

    span_s: float
    """First start to last end of kernels, copies and sets, over all streams; median over iterations."""
    timer_s: float
    """What the timer said of the same iterations; median."""
    launches: int
    """Kernels, copies and sets of one iteration."""
    kernels: tuple[str, ...]
    """Their distinct names, sorted; long ones are shortened (bench.measure.device_span)."""

    def disagreement(self) -> str | None:
        """What to say where the timer's time is not the span's; None where they agree."""
        if abs(self.timer_s / self.span_s - 1) <= DISAGREE_BEYOND:
            return None
        found = f"{units.format_seconds(self.timer_s)} against {units.format_seconds(self.span_s)}"
        return f"{CROSS_CHECK}: {found} for the same iterations"
