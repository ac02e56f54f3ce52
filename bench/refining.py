"""What a sweep measures beside what its file lists: token counts inside a break-even bracket, and the bracket's two
cases over a slower and a faster link. Torch-free; every such case is told from its fields alone, so a run resumes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.added_cases import FACTORS, Added, scaled
from bench.cases import Case
from bench.deciding.break_even import BreakEven, break_evens
from bench.deciding.compare import compare_off_on
from bench.results import Trial
from bench.settings import MeasureSettings

NARROW = 1.125
"""Token counts closer than this factor are not refined: an eighth of the smaller."""
STEPS_AN_OCTAVE = 8
"""New token counts are multiples of an eighth of the power of two below them: 1408, not 1448."""


def midpoint(low: int, high: int) -> int | None:
    """A round token count near the geometric mean, strictly between; None where the gap is narrow."""
    if high <= low * NARROW:
        return None
    mean = math.sqrt(low * high)
    step = max(1, 2 ** int(math.log2(mean)) // STEPS_AN_OCTAVE)
    middle = round(mean / step) * step
    return middle if low < middle < high else None


def next_tokens(answer: BreakEven) -> int | None:
    """What to measure next: the middle of the widest gap between neighbours of the bracket; None where it is narrow
    everywhere, and where there is no bracket.

    Rows without a verdict inside the bracket are neighbours too: they cannot be bisected away.
    """
    if answer.bracket is None:
        return None
    low, high = answer.bracket
    inside = [t for t, _ in answer.verdicts if low <= t <= high]
    gaps = sorted(itertools.pairwise(inside), key=lambda gap: gap[1] / gap[0], reverse=True)
    return next((middle for gap in gaps if (middle := midpoint(*gap)) is not None), None)


@dataclass(frozen=True)
class Refinement:
    """A case to add, and why."""

    case: Case
    why: str
    """For people: ``1408 tokens between 1024 and 2048``."""


def refinements(trials: Sequence[Trial], listed: Sequence[Case], measure: MeasureSettings) -> list[Refinement]:
    """The next round: at most one new token count a series, and at most what is left of ``measure.refine_cases``.

    Args:
        trials: of listed cases and of those that earlier rounds added.
        listed: what the sweep file lists, after ``--filter``.
    """
    if measure.refine != "break_even":
        return []
    mine = Added(listed, measure)
    known = {case.case_id for case in listed}
    base = _base(trials, mine)
    added = {trial.case_id for trial in base} - known
    room = measure.refine_cases - len(added)
    found: dict[str, Refinement] = {}
    for answer in break_evens(compare_off_on(base, measure)):
        tokens = next_tokens(answer)
        if answer.bracket is None or tokens is None:
            continue
        series = answer.series
        case = mine.like(replace(series.workload, tokens=tokens), series.link)
        if case is not None and case.case_id not in known | added:
            low, high = answer.bracket
            found.setdefault(case.case_id, Refinement(case, f"{tokens} tokens between {low} and {high}"))
    return list(found.values())[: max(0, room)]


def without_bracket(trials: Sequence[Trial], listed: Sequence[Case], measure: MeasureSettings) -> list[str]:
    """A line for each series that has nothing to bisect, and nothing to vary a link at: what it has instead."""
    return [
        f"no bracket for {answer.series.variant.label}, {answer.series.workload.precision}, link "
        f"{answer.series.link.name}: {answer.kind}"
        for answer in break_evens(compare_off_on(_base(trials, Added(listed, measure)), measure))
        if answer.bracket is None
    ]


def _base(trials: Sequence[Trial], mine: Added) -> list[Trial]:
    """Of the listed cases and of those that differ from one in their token count alone: no what-if."""
    return [trial for trial in trials if mine.like(trial.workload, trial.link) is not None]


def sensitivities(trials: Sequence[Trial], listed: Sequence[Case], measure: MeasureSettings) -> list[Refinement]:
    """The two cases of every modelled link's bracket, at each of ``FACTORS``; those measured already are left out."""
    if not measure.link_sensitivity:
        return []
    mine = Added(listed, measure)
    found: dict[str, Refinement] = {}
    for answer in break_evens(compare_off_on(_base(trials, mine), measure)):
        for tokens, factor in itertools.product(answer.bracket or (), FACTORS):
            case = mine.like(replace(answer.series.workload, tokens=tokens), answer.series.link)
            if case is not None and case.link.transport == "paced":
                other = replace(case, link=scaled(case.link, factor))
                why = f"{tokens} tokens at bandwidth x{factor:g}"
                found.setdefault(other.case_id, Refinement(other, why))
    done = {trial.case_id for trial in trials}
    return [refinement for case_id, refinement in found.items() if case_id not in done]
