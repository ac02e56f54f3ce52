"""What a resumed sweep still has to do, and when it may not go on. Torch-free."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from bench.cases import Case
from bench.errors import BenchError
from bench.filters import CASE_KEYS
from bench.identity import variant_id
from bench.results import Trial
from bench.running.giving_up import was_given_up
from bench.settings import MeasureSettings

JUDGING = ("decide_beyond", "same_within")
"""Settings of ``measure`` that read stored samples and take none."""
ADDING = ("refine", "refine_cases", "refine_limit_s", "link_sensitivity")
"""Settings that add cases (bench.refining) and leave alone how any case is measured."""

Todo = tuple[tuple[Case, ...], ...]
"""Per pass, the cases to run."""


def remaining(wanted: Sequence[Case], all_cases: Iterable[Case], trials: Iterable[Trial], passes: int) -> Todo:
    """Per pass, the wanted cases without a Trial, with a failed or given up one, or with another set of variants.

    Args:
        wanted: the cases after ``--filter``.
        all_cases: the cases before it.
        trials: those that count (RunFolder.trials).
        passes: measure.passes.
    """
    whole = {case.case_id: case for case in all_cases}
    done = {(trial.case_id, trial.pass_index): trial for trial in trials}
    todo = []
    for pass_index in range(passes):
        left = []
        for case in wanted:
            trial = done.get((case.case_id, pass_index))
            if trial is not None:
                case = _with_stored_variants(case, whole[case.case_id], trial)
            if trial is None or _may_still_run(trial) or trial.variant_ids != set(map(variant_id, case.variants)):
                left.append(case)
        todo.append(tuple(left))
    return tuple(todo)


def _may_still_run(trial: Trial) -> bool:
    """A failure is tried again, and so is what was given up for others' failures; a skip is none."""
    return trial.failed or any(map(was_given_up, trial.measurements))


def _with_stored_variants(case: Case, whole: Case, trial: Trial) -> Case:
    """A new Trial replaces the old one whole: variants that only ``--filter`` leaves out must not vanish with it."""
    wanted = set(map(variant_id, case.variants)) | trial.variant_ids
    return replace(case, variants=tuple(variant for variant in whole.variants if variant_id(variant) in wanted))


def refuse_changed_measure(stored: MeasureSettings, now: MeasureSettings) -> None:
    """Trials of one run are judged together, so they must have been measured alike. How they are judged, and
    which more are asked for, may change.

    Raises:
        BenchError: one line per key of ``measure`` that differs.
    """
    changed = [
        f"measure.{spec.name.removesuffix('_s')}: the run was measured with {getattr(stored, spec.name)}, the sweep "
        f"file now says {getattr(now, spec.name)}; restore it, or start a new run without --resume"
        for spec in fields(MeasureSettings)
        if spec.name not in (*JUDGING, *ADDING) and getattr(stored, spec.name) != getattr(now, spec.name)
    ]
    if changed:
        raise BenchError(*changed)


def refuse_other_cases(trials: Iterable[Trial], cases: Iterable[Case]) -> None:
    """The folder's config must say how to make every result in it; more cases or variants are fine.

    Raises:
        BenchError: the sweep file lacks a case that has a Trial, named in one line.
    """
    listed = {case.case_id for case in cases}
    lost = {trial.case_id: Case(trial.workload, trial.link, ()) for trial in trials if trial.case_id not in listed}
    if lost:
        example = ",".join(f"{key}={read(next(iter(lost.values())))}" for key, read in CASE_KEYS.items())
        raise BenchError(
            f"--resume: the run holds {len(lost)} {'case' if len(lost) == 1 else 'cases'} that the sweep file does not "
            f"list, such as {example}; put it back, or start a new run with another --out"
        )
