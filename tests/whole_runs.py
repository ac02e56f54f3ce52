"""Run against run from all their Trials at once; ``bench compare`` holds a few cases at a time."""

from collections.abc import Sequence

from bench.deciding.across import Axis
from bench.deciding.between import compare_alone, together
from bench.deciding.changes import Between
from bench.results import Trial
from bench.settings import MeasureSettings


def compare_runs(
    base: Sequence[Trial], new: Sequence[Trial], measure: MeasureSettings, axis: Axis | None = None
) -> Between:
    return together(compare_alone(base, new, measure, axis))
