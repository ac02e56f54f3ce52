"""Which case is profiled: one, by the beginning of its id. Torch-free."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.cases import Case
from bench.errors import BenchError
from bench.naming import case_names
from bench.results import ExpertsChoice
from bench.run_folder import CONFIG, RunFolder
from bench.running.settled import skips
from moe_impl.options import Machine

MOST_SHOWN = 8


def config_of(path: Path) -> Path:
    """A sweep file, or that of a run folder."""
    return path / CONFIG if path.is_dir() else path


def one(cases: Sequence[Case], prefix: str | None) -> Case:
    """The only case, or the one whose id begins so.

    Raises:
        BenchError: none or several; the message lists what there is.
    """
    found = [case for case in cases if case.case_id.startswith(prefix or "")]
    if len(found) == 1:
        return found[0]
    names = case_names(list(cases))
    listed = ", ".join(f"{case.case_id} ({names[case.case_id]})" for case in (found or cases)[:MOST_SHOWN])
    more = len(found or cases) - MOST_SHOWN
    rest = f" and {more} more" if more > 0 else ""
    if not found:
        raise BenchError(f"--case: no case begins with {prefix}, there are {listed}{rest}")
    raise BenchError(f"--case: {len(found)} cases match, name one: {listed}{rest}")


def experts_choice(path: Path, case: Case) -> ExpertsChoice | None:
    """What the sweep of a run folder made of the case's ``experts: auto``: its times are of that. None elsewhere."""
    run = RunFolder(path)
    if not run.results_path.is_file() or all(variant.experts != "auto" for variant in case.variants):
        return None
    choices = (trial.experts_choice for trial in run.trials() if trial.case_id == case.case_id)
    return next((choice for choice in choices if choice is not None), None)


def runnable(case: Case, machine: Machine) -> Case:
    """The case with the variants that run here.

    Raises:
        BenchError: none does; with the first reason.
    """
    skipped = {measurement.variant: measurement.reason for measurement in skips(case, machine)}
    runs = tuple(variant for variant in case.variants if variant not in skipped)
    if not runs:
        raise BenchError(f"case {case.case_id} cannot run here: {next(iter(skipped.values()))}")
    return replace(case, variants=runs)
