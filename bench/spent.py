"""What a Trial's seconds went to, apart. Torch-free."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, get_args

Activity = Literal[
    "start",
    "build",
    "self-check",
    "choose experts",
    "first run",
    "oracle",
    "random delays",
    "warm-up",
    "measure",
    "stages",
    "cross-check",
]
"""``start``: of the process, imports and the GPU's context, in the Trial of its first case. ``first run`` compiles.
``oracle``: with the other checks of that run's outputs. ``measure``: the timing itself."""


TIMING: tuple[Activity, ...] = ("warm-up", "measure")
"""What a Trial is for; all else of it is overhead."""


class Spent:
    """A stopwatch that always runs for one activity."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._since_s = clock()
        self._activity: Activity = "build"
        self._spent_s: dict[Activity, float] = {}

    def on(self, activity: Activity) -> None:
        """What follows is this."""
        now_s = self._clock()
        self.add(self._activity, now_s - self._since_s)
        self._activity, self._since_s = activity, now_s

    def add(self, activity: Activity, seconds: float) -> None:
        """Seconds that another clock saw."""
        self._spent_s[activity] = self._spent_s.get(activity, 0.0) + seconds

    def so_far(self) -> dict[Activity, float]:
        """Seconds of each activity that took any, in the order in which they began."""
        self.on(self._activity)
        return {activity: seconds for activity, seconds in self._spent_s.items() if seconds}


@dataclass(frozen=True)
class SpentOn:
    """One activity in a whole run."""

    activity: Activity
    trials: int
    """That had it."""
    median_s: float
    """Of those."""
    largest_s: float
    total_s: float


def together(spent: Iterable[Mapping[Activity, float]]) -> tuple[SpentOn, ...]:
    """Of all Trials of a run, in the order of a Trial."""
    told: dict[Activity, list[float]] = {activity: [] for activity in get_args(Activity)}
    for of_trial in spent:
        for activity, seconds in of_trial.items():
            told[activity].append(seconds)
    return tuple(
        SpentOn(activity, len(each), median(each), max(each), sum(each)) for activity, each in told.items() if each
    )


def process_age_s() -> float | None:
    """Seconds since this process was started; None where the system does not say (proc(5), field 22 of stat)."""
    try:
        stat = Path("/proc/self/stat").read_text()
        ticks = int(stat.rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return None
