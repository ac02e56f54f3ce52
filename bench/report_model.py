"""What a report shows, as data: rows, sections, doubts and failures. Makes no text and reads no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.deciding.alone import Alone
from bench.deciding.backends import Backends
from bench.deciding.best_split import BestSplit
from bench.deciding.break_even import BreakEven, Kind
from bench.deciding.compare import Comparison, Verdict
from bench.deciding.decompose import Decomposition, decompose
from bench.deciding.fits import Fits
from bench.deciding.gpu_states import GpuStates, gpu_states
from bench.deciding.join import Series
from bench.deciding.off_against_off import OffAgainstOff
from bench.deciding.stage_rates import StageRate, stage_rates
from bench.deciding.step import Step
from bench.deciding.tuned import Tuned
from bench.profiling.kept import Kept
from bench.profiling.kernels import KernelProfile
from bench.profiling.shortfall import Shortfall
from bench.results import FAILURES, Status, Traffic, Trial
from bench.settings import MeasureSettings
from bench.spent import SpentOn
from moe_impl.options import Link, Machine, Variant, Workload

CLAIM_ORDER = (Kind.CROSSING, Kind.EVERYWHERE, Kind.NOT_MONOTONE, Kind.UNDECIDED, Kind.NOWHERE, Kind.NO_CLAIM)
"""Which series' answer the headline gives: the first kind found (unknown before no), then the largest speed-up."""


@dataclass(frozen=True)
class Row:
    """One comparison and its explanation, which is found when it is asked for: a terminal shows few of many rows."""

    comparison: Comparison
    passes: Sequence[Trial] = field(repr=False)
    """Of its case."""
    ceilings: Mapping[str, float | None] = field(repr=False)
    """environment.json's."""
    off_activations_bytes: int | None
    """Most activation memory of T1 in any pass; None where the device reports none."""
    on_activations_bytes: int | None
    traffic: Traffic | None = None
    """The same in every pass; None where nobody counted."""
    step: Step | None = None
    off_rank_skew: float | None = None
    """Of T1: (slowest rank - fastest) / slowest, the median over passes; None where one rank ran."""
    on_rank_skew: float | None = None

    @cached_property
    def decomposition(self) -> Decomposition | None:
        return decompose(self.passes, self.comparison)

    @cached_property
    def stage_rates(self) -> tuple[StageRate, ...]:
        """Of T1."""
        return stage_rates(self.passes, self.comparison.baseline, self.ceilings)

    @cached_property
    def gpu(self) -> GpuStates | None:
        """Of the case, all its variants together; None where nobody asked the GPU."""
        return gpu_states(self.passes)

    @property
    def tokens(self) -> int:
        return self.comparison.workload.tokens


@dataclass(frozen=True)
class WhatIf:
    """A row of a break-even's bracket, with the bandwidth of its modelled link changed."""

    factor: float
    comparison: Comparison
    base: Verdict
    """Of the same row at the link's own bandwidth."""

    @property
    def flips(self) -> bool | None:
        """Whether the verdict is another one; None where either is UNDECIDED, which is no verdict."""
        if Verdict.UNDECIDED in (self.base, self.comparison.verdict):
            return None
        return self.comparison.verdict is not self.base


@dataclass(frozen=True)
class Section:
    """One series: one answer and one table, rows by token count."""

    series: Series
    break_even: BreakEven
    rows: tuple[Row, ...]
    labels: tuple[str, ...]
    flags: tuple[str, ...]
    timers: tuple[str, ...]
    what_ifs: tuple[WhatIf, ...] = ()
    """Rows of the bracket over a slower and a faster link."""
    command: str = ""
    """Measures this series again."""

    @property
    def depends_on_link(self) -> bool | None:
        """Whether a verdict of the bracket flips with the link's bandwidth; None where that is unknown, or not asked.

        It is unknown where none flips and one of the bracket's what-ifs is UNDECIDED, or was not measured.
        """
        flips = [one.flips for one in self.what_ifs]
        if any(flips):
            return True
        factors = {one.factor for one in self.what_ifs}
        wanted = {(tokens, factor) for tokens in self.break_even.bracket or () for factor in factors}
        told = {(one.comparison.workload.tokens, one.factor) for one in self.what_ifs if one.flips is not None}
        return False if wanted and wanted <= told and None not in flips and len(factors) > 1 else None

    @cached_property
    def best(self) -> Row | None:
        """The row to quote: the largest token count among the FASTER, else the largest speed-up."""
        rows = [row for row in self.rows if row.comparison.ran_tbo]
        faster = [row for row in rows if row.comparison.verdict is Verdict.FASTER]
        known = [row for row in rows if row.comparison.speedup is not None]
        return faster[-1] if faster else max(known, key=lambda row: row.comparison.speedup or 0.0, default=None)


@dataclass(frozen=True)
class Panel:
    """Series that differ in precision and variant alone: one speed-up plot."""

    sections: tuple[Section, ...]
    command: str = ""
    """Measures them again."""


@dataclass(frozen=True)
class NotTimed:
    """A variant of a case that gave no time in some passes, and why."""

    workload: Workload
    link: Link
    variant: Variant
    status: Status
    reason: str | None
    passes: tuple[int, ...]
    command: str
    """Runs this variant, its T1 and its T2s again."""
    axes: tuple[str, ...] = ()
    """``layers=4``: further fields in which the run's cases differ, beside token count, precision and link."""


@dataclass(frozen=True)
class NoiseFloor:
    """How well this run can tell things apart: medians over its comparisons, as fractions."""

    within_sd: float | None
    """Of paired log ratios within a pass."""
    between_sd: float | None
    """Of the pass means."""
    min_detectable: float | None
    min_detectable_worst: float | None
    """The largest of any comparison."""


@dataclass(frozen=True)
class Checks:
    """How many (case, variant, pass) were compared with the oracle, and how many passed."""

    passed: int
    made: int
    largest_error: float | None = None
    """Relative, of any layer of any of them; None without a check, and where one is no finite number."""
    tolerances: tuple[float, ...] = ()
    """Distinct ones, rising."""
    disturbed: int = 0
    """Overlapped (case, variant, pass) that were run again with random host delays."""
    disturbed_runs: int = 0
    """Such runs in all."""
    largest_spread: float = 0.0
    """Largest relative difference of an output to its undisturbed run's; 0.0 = the same bits everywhere."""


@dataclass(frozen=True)
class Missing:
    """Cases of which the same passes are not there, and that differ in their token counts alone."""

    case: str
    """``precision=bf16``: what tells them from others of the sweep; empty where nothing but token counts does, or where
    every case of the sweep lacks these passes."""
    tokens: tuple[int, ...]
    """Rising; empty where every case of the sweep lacks these passes."""
    passes: tuple[int, ...]
    """From 0."""


@dataclass(frozen=True)
class Coverage:
    """How much of what the sweep file asks for is reported: Trials are cases times passes."""

    trials: int
    planned: int
    partial: int
    """Of ``trials``: those without all variants of their case."""
    missing: tuple[Missing, ...] = ()
    """The rest of ``planned``."""

    @property
    def complete(self) -> bool:
        return self.trials == self.planned and not self.partial


@dataclass(frozen=True)
class ReportModel:
    """Everything a report shows."""

    run: str
    question: str
    machines: tuple[Machine, ...]
    measure: MeasureSettings
    passes: int
    sections: tuple[Section, ...]
    panels: tuple[Panel, ...]
    not_timed: tuple[NotTimed, ...]
    noise: NoiseFloor
    checks: Checks
    coverage: Coverage
    environment: dict[str, Any]
    commands: tuple[str, ...]
    """That repeat this run and this report."""
    alone: tuple[Alone, ...] = ()
    """What was timed in a run that asked for no overlapped variant."""
    timelines: tuple[Kept, ...] = ()
    """Profiles that the run keeps."""
    kernel_profiles: tuple[KernelProfile, ...] = ()
    """Those by Nsight Compute, which have no timeline."""
    shortfalls: tuple[Shortfall, ...] = ()
    """What those of overlapped variants say of their distance from the ideal."""
    unreadable: tuple[str, ...] = ()
    """What is wrong with profiles that are there and cannot be shown, a line each."""
    best_splits: tuple[BestSplit, ...] = ()
    """Of the cases with several split factors."""
    tuned: tuple[Tuned, ...] = ()
    """Best setting against best setting, of the cases with something to pick and enough passes."""
    fits: tuple[Fits, ...] = ()
    """Of the series that lacked memory somewhere."""
    off_against_off: tuple[OffAgainstOff, ...] = ()
    """A/A comparisons, where the sweep file asks for them."""
    backends: tuple[Backends, ...] = ()
    """Of the cases whose T1 was timed on several."""
    spent: tuple[SpentOn, ...] = ()
    """What its Trials' time went to; empty for runs of before it was told."""
    unwatched: float = 0.0
    """Share of its Trials in which nobody could ask the GPU for clock and power."""

    @property
    def on_cpu(self) -> bool:
        """A functional check, whatever its numbers."""
        return any(machine.device == "cpu" for machine in self.machines)

    @cached_property
    def headline(self) -> Section | None:
        """The series whose answer goes first."""

        def rank(section: Section) -> tuple[int, float]:
            best = section.best.comparison.speedup if section.best else None
            return CLAIM_ORDER.index(section.break_even.kind), -(best or 0.0)

        return min(self.sections, key=rank, default=None)

    @property
    def telling(self) -> tuple[Row, ...]:
        """Rows whose timelines explain the headline best: the one it quotes, and the largest where TBO does not pay."""
        section = self.headline
        if section is None or self.on_cpu:
            return ()
        last = section.break_even.largest_not_faster
        return tuple(row for row in section.rows if row is section.best or row.tokens == last)

    @property
    def failures(self) -> tuple[NotTimed, ...]:
        return tuple(entry for entry in self.not_timed if entry.status in FAILURES)

    @property
    def skips(self) -> tuple[NotTimed, ...]:
        return tuple(entry for entry in self.not_timed if entry.status is Status.SKIPPED)
