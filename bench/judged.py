"""Read two runs and judge each row for itself; of large runs a few cases at a time, in several processes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench import forked, lines, report
from bench.deciding.across import Axis
from bench.deciding.between import compare_alone, joined
from bench.deciding.changes import Alone
from bench.errors import BenchError, Exit
from bench.lines import Line
from bench.quick_record import QuickReader
from bench.results import Trial
from bench.run_folder import RunFolder
from bench.settings import MeasureSettings
from moe_impl.options import Machine

CASES_AT_ONCE = 50
"""Enough to make up for their journey from process to process, few enough to stay in its processor's cache."""

Placed = Mapping[int, Trial]
"""Trials by their place in the run's file."""


@dataclass(frozen=True)
class Side:
    """What a comparison of all rows needs to know of one run, or of a share of its cases, beside them."""

    kinds: Placed
    """One Trial of each machine, timer and set of launch modes: what says whether two runs are alike."""
    order: Mapping[str, int]
    """case_id -> its first place."""


@dataclass(frozen=True)
class Judged:
    """Two runs, or a share of their cases."""

    base: Side
    new: Side
    alone: Alone


def judge(
    base: RunFolder, new: RunFolder, measure: MeasureSettings, axis: Axis | None, filter_text: str | None
) -> Judged:
    """Every row of BASE against its counterpart in NEW.

    Args:
        base: the opened run that sets the standard.
        new: the one that is judged.
        measure: the margins.
        axis: along which their cases may differ.
        filter_text: what is kept of both.

    Raises:
        BenchError: a run without Trials, a damaged line, a filter that matches nothing.
    """
    if axis is None and filter_text is None:
        each = forked.each if base.is_large or new.is_large else map
        base_lines, new_lines = each(lines.by_case, (base.results_path, new.results_path))
        try:
            found = list(each(partial(_share, base, new, measure), _shares(base_lines, new_lines)))
        except BenchError:
            pass  # a damaged line, perhaps of several: read in order, the first is named
        else:
            return _whole(found, base, new)
    base_trials, new_trials = (_some(run, run.trials(times_only=True)) for run in (base, new))
    base_kept, new_kept = (dict(enumerate(kept)) for kept in _only(base_trials, new_trials, filter_text))
    return _judged(base_kept, new_kept, measure, axis)


def _some(run: RunFolder, trials: Sequence[Trial]) -> Sequence[Trial]:
    if not trials:
        raise BenchError(f"{run.path}: no results yet; nothing to compare", code=Exit.NOT_COMPARABLE)
    return trials


def _only(
    base: Sequence[Trial], new: Sequence[Trial], filter_text: str | None
) -> tuple[Sequence[Trial], Sequence[Trial]]:
    """What the filter keeps of both. One that matches in BASE alone is no mistake: that leaves rows unmatched."""
    kept = report.only([*base, *new], filter_text)
    cases = {trial.case_id for trial in kept}
    num_base = sum(trial.case_id in cases for trial in base)
    return kept[:num_base], kept[num_base:]


def _judged(base: Placed, new: Placed, measure: MeasureSettings, axis: Axis | None) -> Judged:
    alone = compare_alone(list(base.values()), list(new.values()), measure, axis)
    return Judged(_side(base), _side(new), alone)


def _side(trials: Placed) -> Side:
    kinds: dict[tuple[Machine, str, frozenset[str]], int] = {}
    order: dict[str, int] = {}
    for place, trial in trials.items():
        launches = frozenset(m.variant.launch for m in trial.measurements)
        kinds.setdefault((trial.machine, trial.timer, launches), place)
        order.setdefault(trial.case_id, place)
    return Side({place: trials[place] for place in kinds.values()}, order)


Share = tuple[list[Line], list[Line]]
"""Lines of BASE and of NEW: all of some cases."""


def _shares(base: Mapping[bytes, list[Line]], new: Mapping[bytes, list[Line]]) -> Iterator[Share]:
    names = list(dict.fromkeys((*base, *new)))
    for first in range(0, len(names), CASES_AT_ONCE):
        some = names[first : first + CASES_AT_ONCE]
        yield (
            sorted(line for name in some for line in base.get(name, ())),
            sorted(line for name in some for line in new.get(name, ())),
        )


def _share(base: RunFolder, new: RunFolder, measure: MeasureSettings, share: Share) -> Judged:
    reader = QuickReader(times_only=True)
    found = _judged(base.trials_on(share[0], reader), new.trials_on(share[1], reader), measure, None)
    _compute(found.alone)
    return found


def _compute(alone: Alone) -> None:
    """What is asked of every row when all are together: found here, it travels with the row."""
    for row in (*alone.base_rows, *alone.new_rows):
        _ = row.case_id, row.estimate is None or row.estimate.p_value
    for change in alone.changes:
        for one in (change, *change.times):
            _ = one.difference is None or one.difference.p_value


def _whole(shares: Sequence[Judged], base: RunFolder, new: RunFolder) -> Judged:
    of_base, of_new = _sides([share.base for share in shares]), _sides([share.new for share in shares])
    for run, side in ((base, of_base), (new, of_new)):
        _some(run, list(side.kinds.values()))
    return Judged(of_base, of_new, joined([share.alone for share in shares], of_base.order, of_new.order))


def _sides(shares: Sequence[Side]) -> Side:
    kinds = sorted(item for share in shares for item in share.kinds.items())
    return Side(dict(kinds), {case: place for share in shares for case, place in share.order.items()})
