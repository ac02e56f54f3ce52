"""Build the report of a run: which answers, rows, failures and doubts, in which order. Makes no text."""

import math
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TypeVar

from bench import filters
from bench.added_cases import FACTORS, Added, base_of, scaled
from bench.cases import Case, expand
from bench.config.spec import SweepConfig
from bench.deciding import join
from bench.deciding.alone import alone
from bench.deciding.backends import backends
from bench.deciding.best_split import best_splits
from bench.deciding.break_even import BreakEven, break_evens
from bench.deciding.compare import Comparison, compare_cases, compare_off_on
from bench.deciding.fits import fits
from bench.deciding.join import Series, at_any_tokens, series_of
from bench.deciding.off_against_off import OffAgainstOff, off_against_off
from bench.deciding.step import step
from bench.deciding.tuned import tuned
from bench.errors import BenchError, Exit
from bench.identity import variant_id
from bench.naming import case_names, terms_for, varying
from bench.profiling.kept import TIMELINES, profiles_of
from bench.profiling.kernels import kernel_profiles
from bench.profiling.shortfall import shortfalls
from bench.report_model import Checks, Coverage, Missing, NoiseFloor, NotTimed, Panel, ReportModel, Row, Section, WhatIf
from bench.results import Status, Trial
from bench.run_folder import CONFIG
from bench.settings import MeasureSettings
from bench.spent import together
from moe_impl.options import Machine, Variant


class Run(Protocol):
    """What a report reads of a run folder (bench.run_folder)."""

    @property
    def path(self) -> Path: ...
    def trials(self, *, times_only: bool = False) -> list[Trial]: ...
    def config(self) -> SweepConfig: ...
    def environment(self) -> dict[str, Any]: ...


def only(trials: Sequence[Trial], filter_text: str | None) -> list[Trial]:
    """The Trials and measurements that a ``--filter`` keeps, each variant with its T1 and T2s; None keeps all.

    Raises:
        BenchError: a malformed filter, or one that matches nothing.
    """
    if filter_text is None:
        return list(trials)
    cases = [
        Case(passes[0].workload, passes[0].link, tuple(join.variants_of(passes)))
        for passes in join.by_case(trials).values()
    ]
    kept = {case.case_id: case.variants for case in filters.select(cases, filter_text)}
    return [
        replace(
            trial,
            measurements=tuple(m for m in trial.measurements if m.variant in kept[trial.case_id]),
            off_again=tuple(m for m in trial.off_again if m.variant in kept[trial.case_id]),
        )
        for trial in trials
        if trial.case_id in kept
    ]


def build(run: Run, trials: Sequence[Trial] | None = None) -> ReportModel:
    """The report of a run folder.

    Args:
        run: the opened folder.
        trials: those to report, where only some of the run's are wanted.

    Raises:
        BenchError: the run holds no Trial.
    """
    trials = run.trials() if trials is None else trials
    if not trials:
        raise BenchError(f"{run.path}: no results yet; nothing to compare", code=Exit.NOT_COMPARABLE)
    config = run.config()
    listed, environment = expand(config), run.environment()
    varied = {link for link in {trial.link for trial in trials} if base_of(link, config.case.link) is not None}
    elsewhere = [trial for trial in trials if trial.link in varied]
    # a --filter may leave nothing else: then these are the table
    base = ([trial for trial in trials if trial.link not in varied] if varied else trials) or trials
    all_cases = join.by_case(trials)
    cases = all_cases if base is trials else join.by_case(base)
    comparisons = compare_cases(cases, config.measure)
    # a family of their own as to false discoveries: nobody's verdict hangs on how many what-ifs were measured
    what_ifs = compare_off_on(elsewhere, config.measure)
    ceilings = environment.get("ceilings") or {}
    rows = [_row(cases, comparison, ceilings) for comparison in comparisons]
    again = _Again(run, listed, trials[0].machine)
    by_series, varied_by_series = _by_series(rows, lambda row: row.comparison), _by_series(what_ifs, lambda row: row)
    sections = [_section(answer, by_series, varied_by_series, again) for answer in break_evens(comparisons)]
    timelines, unreadable = profiles_of(run.path)
    profiled = {kept.case.case_id for kept in timelines}
    explained = {(c.case_id, c.variant): row.decomposition for row in rows if (c := row.comparison).case_id in profiled}
    kernels, unreadable_kernels = kernel_profiles(run.path / TIMELINES)
    again_off = off_against_off(base, config.measure)
    return ReportModel(
        run=str(run.path),
        question=config.question,
        machines=tuple(dict.fromkeys(trial.machine for trial in trials)),
        measure=config.measure,
        passes=len({trial.pass_index for trial in trials}),
        sections=tuple(sections),
        panels=_panels(sections, again),
        not_timed=tuple(_not_timed(all_cases.values(), run.path)),
        noise=_noise(comparisons or again_off),
        checks=_checks(trials),
        coverage=_coverage(trials, listed, config.measure),
        environment=environment,
        commands=tuple(
            shlex.join(words)
            for words in (
                again.words,
                ["bench", "compare", str(run.path)],
                ["bench", "report", str(run.path)],
            )
        ),
        alone=alone(trials),
        timelines=timelines,
        kernel_profiles=kernels,
        shortfalls=tuple(shortfalls(timelines, explained)),
        unreadable=(*unreadable, *unreadable_kernels),
        best_splits=best_splits(cases, comparisons, config.measure),
        tuned=tuned(cases, config.measure),
        fits=fits(cases.values()),
        off_against_off=tuple(again_off),
        backends=backends(cases.values(), ceilings),
        spent=together(trial.spent_s for trial in trials),
        unwatched=sum(not trial.telemetry for trial in trials) / len(trials),
    )


def _row(cases: Mapping[str, Sequence[Trial]], comparison: Comparison, ceilings: Mapping[str, float | None]) -> Row:
    passes = cases[comparison.case_id]

    def activations(variant: Variant) -> int | None:
        known = [m.memory.activations_bytes for m in join.timed(passes, variant).values() if m.memory is not None]
        return max(known, default=0) or None

    def skew(variant: Variant) -> float | None:
        known = [m.rank_skew for m in join.timed(passes, variant).values() if m.rank_skew is not None]
        return median(known) if known else None

    return Row(
        comparison,
        passes,
        ceilings,
        activations(comparison.baseline),
        activations(comparison.variant),
        next((trial.traffic for trial in passes if trial.traffic is not None), None),
        step(comparison),
        skew(comparison.baseline),
        skew(comparison.variant),
    )


class _Again:
    """What measures a run's rows again, into a folder of their own.

    Args:
        run: the run.
        cases: all that its sweep file asks for.
        machine: where it ran.
    """

    def __init__(self, run: Run, cases: Sequence[Case], machine: Machine) -> None:
        self.words = ["bench", "sweep", str(run.path / CONFIG), *_nproc(machine)]
        # a filter holds at every token count: of cases that differ in nothing else, one
        alike = {(at_any_tokens(case.workload), case.link, case.link.name, case.variants): case for case in cases}
        self._cases = tuple(alike.values())

    def command(self, rows: Iterable[Row]) -> str:
        compared = (row.comparison for row in rows)
        terms = terms_for([Case(one.workload, one.link, (one.variant,)) for one in compared], self._cases)
        return shlex.join([*self.words, *(["--filter", terms] if terms else [])])


R = TypeVar("R")


def _by_series(rows: Iterable[R], compared: Callable[[R], Comparison]) -> dict[Series, list[R]]:
    found: dict[Series, list[R]] = {}
    for row in rows:
        one = compared(row)
        found.setdefault(series_of(one.workload, one.link, one.variant), []).append(row)
    return found


def _section(
    answer: BreakEven, rows: Mapping[Series, list[Row]], what_ifs: Mapping[Series, list[Comparison]], again: _Again
) -> Section:
    mine = sorted(rows[answer.series], key=lambda row: row.tokens)
    return Section(
        answer.series,
        answer,
        tuple(mine),
        labels=join.distinct(row.comparison.labels for row in mine),
        flags=join.distinct(row.comparison.flags for row in mine),
        timers=join.distinct(row.comparison.timers for row in mine),
        what_ifs=tuple(_what_ifs(answer, what_ifs)),
        command=again.command(mine),
    )


def _what_ifs(answer: BreakEven, measured: Mapping[Series, list[Comparison]]) -> Iterable[WhatIf]:
    verdicts = dict(answer.verdicts)
    for factor in FACTORS:
        series = replace(answer.series, link=scaled(answer.series.link, factor))
        for row in measured.get(series, ()):
            if row.workload.tokens in verdicts:
                yield WhatIf(factor, row, verdicts[row.workload.tokens])


ON_ONE_PLOT = frozenset({"precision", "dispatch_dtype"})
"""Series that differ in these alone share a plot."""


def _panels(sections: Iterable[Section], again: _Again) -> tuple[Panel, ...]:
    groups: dict[tuple[Any, ...], list[Section]] = {}
    for section in sections:
        workload = section.series.workload
        shared = (getattr(workload, spec.name) for spec in fields(workload) if spec.name not in ON_ONE_PLOT)
        groups.setdefault((section.series.link, *shared), []).append(section)
    return tuple(
        Panel(tuple(group), again.command(row for section in group for row in section.rows))
        for group in groups.values()
    )


NAMED = ("tokens", "precision", "link")


def _not_timed(cases: Collection[Sequence[Trial]], run_path: Path) -> Iterable[NotTimed]:
    # a run may hold fewer cases than its config: the axes that vary most are named even where they do not vary here
    alike = [Case(passes[0].workload, passes[0].link, ()) for passes in cases]
    names, further = case_names(alike, NAMED), [key for key in varying(alike) if key not in NAMED]
    for passes, case in zip(cases, alike, strict=True):
        workload, link = case.workload, case.link
        told = {key: filters.CASE_KEYS[key](case) for key in further}
        axes = tuple(f"{key}={text}" if text else f"no {key}" for key, text in told.items())
        for variant in join.variants_of(passes):
            outcomes: dict[tuple[Status, str | None], list[int]] = {}
            for pass_index, m in join.measured(passes, variant).items():
                if m.status is not Status.OK:
                    outcomes.setdefault((m.status, m.reason), []).append(pass_index)
            command = _repeat(run_path, passes[0].machine, names[passes[0].case_id], variant)
            for (status, reason), indices in outcomes.items():
                yield NotTimed(workload, link, variant, status, reason, tuple(indices), command, axes)


def _repeat(run_path: Path, machine: Machine, case_name: str, variant: Variant) -> str:
    """What heals the run: it measures this again into the same folder."""
    terms = f"{case_name},experts={variant.experts}"
    if variant.role != "T1":  # its split factor names no T2o of the sweep
        terms += f",split_factor={variant.split_factor}"
    where = ["--device", machine.device, *_nproc(machine)]
    heal = ["--out", str(run_path), "--resume", *where, "--filter", terms]
    return shlex.join(["bench", "sweep", str(run_path / CONFIG), *heal])


def _nproc(machine: Machine) -> list[str]:
    return ["--nproc", str(machine.ranks)] if machine.ranks > 1 else []


def _noise(compared: Iterable[Comparison | OffAgainstOff]) -> NoiseFloor:
    """Of TBO's comparisons; where there are none, of off against off."""
    estimates = [one.estimate for one in compared if one.estimate is not None]
    within = [e.within_sd for e in estimates if e.within_sd is not None]
    between = [e.between_sd for e in estimates if e.between_sd is not None]
    detectable = [e.min_detectable for e in estimates if e.min_detectable is not None]
    return NoiseFloor(
        median(within) if within else None,
        median(between) if between else None,
        median(detectable) if detectable else None,
        max(detectable, default=None),
    )


def _checks(trials: Sequence[Trial]) -> Checks:
    checks = [m.check for trial in trials for m in trial.measurements if m.check is not None]
    errors = [check.relative_error for check in checks]
    spreads = [m.spread for trial in trials for m in trial.measurements if m.spread is not None]
    return Checks(
        passed=sum(check.passed for check in checks),
        made=len(checks),
        largest_error=max(errors) if errors and all(map(math.isfinite, errors)) else None,
        tolerances=tuple(sorted({check.tolerance for check in checks})),
        disturbed=len(spreads),
        disturbed_runs=sum(spread.runs for spread in spreads),
        largest_spread=max((spread.largest_difference for spread in spreads), default=0.0),
    )


def _coverage(trials: Sequence[Trial], listed: Sequence[Case], measure: MeasureSettings) -> Coverage:
    """Whether every case of the sweep file, and every one that its rounds added, is there in every pass, with all its
    variants."""
    cases = [*listed, *Added(listed, measure).cases(trials)]
    asked = {case.case_id: {variant_id(variant) for variant in case.variants} for case in cases}
    mine = [trial for trial in trials if trial.case_id in asked and trial.pass_index < measure.passes]
    there = {(trial.case_id, trial.pass_index) for trial in mine}
    lacking = [
        (case, tuple(p for p in range(measure.passes) if (case_id, p) not in there))
        for case_id, case in {case.case_id: case for case in cases}.items()
    ]
    return Coverage(
        trials=len(mine),
        planned=len(asked) * measure.passes,
        partial=sum(not asked[trial.case_id] <= trial.variant_ids for trial in mine),
        missing=tuple(_missing(lacking)),
    )


def _missing(lacking: Sequence[tuple[Case, tuple[int, ...]]]) -> Iterable[Missing]:
    """Of (case, passes that are not there)."""
    everywhere = {passes for _, passes in lacking}
    if len(everywhere) == 1:
        return [Missing("", (), passes) for passes in everywhere if passes]
    told = [key for key in varying([case for case, _ in lacking]) if key != "tokens"]
    groups: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for case, passes in lacking:
        if passes:
            name = ",".join(f"{key}={filters.CASE_KEYS[key](case)}" for key in told)
            groups.setdefault((name, passes), []).append(case.workload.tokens)
    return [Missing(name, tuple(sorted(tokens)), passes) for (name, passes), tokens in groups.items()]
