"""Find what belongs together in a run's Trials: a case's passes, a variant's measurements, a series over tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.results import Measurement, Status, Trial
from moe_impl.options import Link, Variant, Workload

ANY_TOKENS = 0
"""Stands for the token count in a series' workload; no case has it."""


@dataclass(frozen=True)
class Series:
    """Everything that is equal along one line of a plot: all but the token count."""

    workload: Workload
    """With ``tokens`` = ANY_TOKENS."""
    link: Link
    variant: Variant


def series_of(workload: Workload, link: Link, variant: Variant) -> Series:
    """The series that a case's variant belongs to."""
    return Series(replace(workload, tokens=ANY_TOKENS), link, variant)


def by_case(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """case_id -> its Trials by pass, cases in order of first appearance."""
    cases: dict[str, list[Trial]] = {}
    for trial in trials:
        cases.setdefault(trial.case_id, []).append(trial)
    return {case: sorted(passes, key=lambda trial: trial.pass_index) for case, passes in cases.items()}


def variants_of(passes: Iterable[Trial]) -> list[Variant]:
    """The distinct variants of a case, in order of first appearance."""
    return list(dict.fromkeys(m.variant for trial in passes for m in trial.measurements))


def measured(passes: Sequence[Trial], variant: Variant) -> dict[int, Measurement]:
    """pass_index -> that variant's measurement, whatever its status."""
    return {trial.pass_index: m for trial in passes for m in trial.measurements if m.variant == variant}


def timed(passes: Sequence[Trial], variant: Variant) -> dict[int, Measurement]:
    """pass_index -> that variant's measurement, where it was checked and timed."""
    return {p: m for p, m in measured(passes, variant).items() if m.status is Status.OK and m.samples_s}


def samples_s(measurements: Iterable[Measurement]) -> list[float]:
    """All samples, in seconds, pass by pass."""
    return [sample for m in measurements for sample in m.samples_s]
