"""Find what belongs together in a run's Trials: a case's passes, a variant's measurements, a series over tokens."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from math import log
from statistics import median
from typing import Any

from bench.lazy import lazy
from bench.results import Measurement, Status, Trial
from moe_impl.options import Link, Machine, Variant, Workload

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


class SeriesOfRows:
    """``series_of`` for many rows that share workloads, links and variants: each object is hashed once, being slow to
    hash, and equal series are one object."""

    def __init__(self) -> None:
        self._series: dict[tuple[int, int, int], Series] = {}
        self._same: dict[int, tuple[Any, Any]] = {}  # by the object's id, which the object held here keeps its own
        self._first: dict[Any, Any] = {}

    def __call__(self, workload: Workload, link: Link, variant: Variant) -> Series:
        parts = self._one(workload, at_any_tokens), self._one(link), self._one(variant)
        key = id(parts[0]), id(parts[1]), id(parts[2])
        return self._series.get(key) or self._series.setdefault(key, Series(*parts))

    def _one(self, value: Any, read: Callable[[Any], Any] | None = None) -> Any:
        """The first that was equal to what ``read`` makes of the value."""
        known = self._same.get(id(value))
        if known is None:
            made = value if read is None else read(value)
            known = self._same[id(value)] = value, self._first.setdefault(made, made)
        return known[1]


class Runs:
    """One variant in the passes of a case."""

    def __init__(self) -> None:
        self.measured: dict[int, Measurement] = {}
        """pass_index -> its measurement, whatever its status."""

    @lazy
    def timed(self) -> dict[int, Measurement]:
        """The same where it was checked and timed."""
        return {p: m for p, m in self.measured.items() if m.status is Status.OK and m.samples_s}

    @lazy
    def median_s(self) -> float | None:
        """Of all samples; None where it was never timed."""
        return median(samples_s(self.timed.values())) if self.timed else None

    @lazy
    def pass_logs(self) -> tuple[float, ...]:
        """Log of each timed pass's median: a few slow samples are not the pass."""
        return tuple(log(median(m.samples_s)) for m in self.timed.values())


class Passes(list[Trial]):
    """The Trials of one case, by pass, in which a variant is found without a search."""

    @lazy
    def by_variant(self) -> dict[Variant, Runs]:
        """Variants in order of first appearance."""
        found: dict[Variant, Runs] = {}
        same: dict[int, Runs] = {}  # by the object's id: passes share their variants, and one is slow to hash
        for trial in self:
            for m in trial.measurements:
                runs = same.get(id(m.variant))
                if runs is None:
                    runs = same[id(m.variant)] = found.setdefault(m.variant, Runs())
                runs.measured[trial.pass_index] = m
        return found

    @lazy
    def settings(self) -> frozenset[tuple[Machine, str]]:
        """Machines and timers of the passes."""
        machines = {(id(trial.machine), trial.timer): trial.machine for trial in self}
        return frozenset((machine, timer) for (_, timer), machine in machines.items())


def by_case(trials: Iterable[Trial]) -> dict[str, Passes]:
    """case_id -> its Trials by pass, cases in order of first appearance."""
    cases: dict[str, list[Trial]] = {}
    for trial in trials:
        cases.setdefault(trial.case_id, []).append(trial)
    return {case: Passes(sorted(passes, key=lambda trial: trial.pass_index)) for case, passes in cases.items()}


def variants_of(passes: Sequence[Trial]) -> list[Variant]:
    """The distinct variants of a case, in order of first appearance."""
    return list(indexed(passes).by_variant)


def indexed(passes: Sequence[Trial]) -> Passes:
    """The passes of one case as such: for any but ``by_case``'s made anew each time."""
    return passes if isinstance(passes, Passes) else Passes(passes)


def runs(passes: Sequence[Trial], variant: Variant) -> Runs:
    """All of a variant; empty where the case does not hold it."""
    return indexed(passes).by_variant.get(variant) or Runs()


def measured(passes: Sequence[Trial], variant: Variant) -> dict[int, Measurement]:
    """pass_index -> that variant's measurement, whatever its status."""
    return runs(passes, variant).measured


def timed(passes: Sequence[Trial], variant: Variant) -> dict[int, Measurement]:
    """pass_index -> that variant's measurement, where it was checked and timed."""
    return runs(passes, variant).timed


@lru_cache(maxsize=MOST_VARIANTS)
def unsplit(variant: Variant) -> Variant:
    """Its T1: the same few are asked for in every case."""
    return variant.unsplit()


@lru_cache(maxsize=MOST_VARIANTS)
def split_serial(variant: Variant) -> Variant:
    """Its T2s."""
    return variant.split_serial()


def samples_s(measurements: Iterable[Measurement]) -> list[float]:
    """All samples, in seconds, pass by pass."""
    return list(chain.from_iterable(m.samples_s for m in measurements))


def distinct(texts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Each text once, in the order in which they come first."""
    return tuple(dict.fromkeys(chain.from_iterable(dict.fromkeys(texts))))
