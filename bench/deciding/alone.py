"""A run without any overlapped variant (``USE_TBO=0``): its times, and no verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.deciding import join
from bench.deciding.join import Series, series_of
from bench.results import Trial


@dataclass(frozen=True)
class Alone:
    """One variant over token counts, with nothing to compare it with."""

    series: Series
    times_s: tuple[tuple[int, float], ...]
    """(tokens, median seconds an iteration over all passes), by tokens."""
    timers: tuple[str, ...]
    labels: tuple[str, ...]
    flags: tuple[tuple[int, tuple[str, ...]], ...]
    """(tokens, doubts about what was measured in any pass), by tokens."""


def alone(trials: Sequence[Trial]) -> tuple[Alone, ...]:
    """All that was timed, if no Trial holds an overlapped variant (T2o), whatever became of it; else nothing."""
    if any(m.role == "T2o" for trial in trials for m in trial.measurements):
        return ()
    times_s: dict[Series, dict[int, float]] = {}
    labels: dict[Series, dict[str, None]] = {}
    flags: dict[Series, dict[int, tuple[str, ...]]] = {}
    for passes in join.by_case(trials).values():
        workload, link = passes[0].workload, passes[0].link
        for variant in join.variants_of(passes):
            timed = join.timed(passes, variant).values()
            if timed:
                series = series_of(workload, link, variant)
                times_s.setdefault(series, {})[workload.tokens] = median(join.samples_s(timed))
                labels.setdefault(series, {}).update(dict.fromkeys(label for m in timed for label in m.labels))
                doubts = join.distinct(m.flags for m in timed)
                flags.setdefault(series, {})[workload.tokens] = doubts
    timers = tuple(dict.fromkeys(trial.timer for trial in trials))
    return tuple(
        Alone(
            series,
            tuple(sorted(by_tokens.items())),
            timers,
            tuple(labels[series]),
            tuple(sorted(flags[series].items())),
        )
        for series, by_tokens in times_s.items()
    )
