"""Find what belongs together in a run's Trials: a case's passes, a variant's measurements, a series over tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from bench.results import Measurement, Status, Trial
from moe_impl.options import Link, Variant, Workload

ANY_TOKENS = 0
"""Stands for the token count in a series' workload; no case has it."""
MOST_VARIANTS = 4096


@dataclass(frozen=True)
class Series:
    """Everything that is equal along one line of a plot: all but the token count."""

    workload: Workload
    """With ``tokens`` = ANY_TOKENS."""
    link: Link
    variant: Variant


def at_any_tokens(workload: Workload) -> Workload:
    """The workload, whatever its token count."""
    return replace(workload, tokens=ANY_TOKENS)


def series_of(workload: Workload, link: Link, variant: Variant) -> Series:
    """The series that a case's variant belongs to."""
    return Series(at_any_tokens(workload), link, variant)


class Passes(list[Trial]):
    """The Trials of one case, by pass, in which a variant is found without a search."""

    @cached_property
    def by_variant(self) -> dict[Variant, dict[int, Measurement]]:
        """variant -> pass_index -> its measurement, variants in order of first appearance."""
        found: dict[Variant, dict[int, Measurement]] = {}
        for trial in self:
            for m in trial.measurements:
                found.setdefault(m.variant, {})[trial.pass_index] = m
        return found


def by_case(trials: Iterable[Trial]) -> dict[str, Passes]:
    """case_id -> its Trials by pass, cases in order of first appearance."""
    cases: dict[str, list[Trial]] = {}
    for trial in trials:
        cases.setdefault(trial.case_id, []).append(trial)
    return {case: Passes(sorted(passes, key=lambda trial: trial.pass_index)) for case, passes in cases.items()}


def variants_of(passes: Sequence[Trial]) -> list[Variant]:
    """The distinct variants of a case, in order of first appearance."""
    return list(_index(passes))


def measured(passes: Sequence[Trial], variant: Variant) -> dict[int, Measurement]:
    """pass_index -> that variant's measurement, whatever its status."""
    return _index(passes).get(variant, {})


@lru_cache(maxsize=MOST_VARIANTS)
def unsplit(variant: Variant) -> Variant:
    """Its T1: the same few are asked for in every case."""
    return variant.unsplit()


@lru_cache(maxsize=MOST_VARIANTS)
def split_serial(variant: Variant) -> Variant:
    """Its T2s."""
    return variant.split_serial()


def _index(passes: Sequence[Trial]) -> dict[Variant, dict[int, Measurement]]:
    return (passes if isinstance(passes, Passes) else Passes(passes)).by_variant


def timed(passes: Sequence[Trial], variant: Variant) -> dict[int, Measurement]:
    """pass_index -> that variant's measurement, where it was checked and timed."""
    return {p: m for p, m in measured(passes, variant).items() if m.status is Status.OK and m.samples_s}


def samples_s(measurements: Iterable[Measurement]) -> list[float]:
    """All samples, in seconds, pass by pass."""
    return [sample for m in measurements for sample in m.samples_s]
