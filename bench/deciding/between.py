"""Decide run against run: has TBO's speed-up T1/T2o, in which drift cancels, changed from BASE to NEW?

The change is log(speed-up of NEW) - log(speed-up of BASE), each side's pass means an independent sample
(bench.deciding.welch). Absolute times stand beside it; what differs between two runs of the same code (clocks,
temperature, neighbours) is all in them, so they are judged against the noise floor between processes.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from bench.deciding import compare, join
from bench.deciding.across import Axis, Place, pair
from bench.deciding.at_once import tell_medians
from bench.deciding.changes import Alone, Between, Change, Doubt, NotCompared, OtherWork, Times
from bench.deciding.compare import CLAIMS, Comparison, Reason, Verdict
from bench.deciding.discovery import surviving
from bench.deciding.join import Passes, Runs
from bench.deciding.sides import Sides, overlapped
from bench.deciding.welch import Difference
from bench.lazy import tell
from bench.results import Measurement, Trial
from bench.settings import MeasureSettings
from moe_impl.options import Role

FORBIDS = {
    Reason.CPU: Doubt.CPU,
    Reason.TURNED_OFF: Doubt.TURNED_OFF,
    Reason.BASELINE_MISSING: Doubt.BASELINE_MISSING,
    Reason.BASELINE_FAILED: Doubt.BASELINE_FAILED,
    Reason.PASS_FAILED: Doubt.PASS_FAILED,
    Reason.UNPAIRED: Doubt.UNPAIRED,
    Reason.MACHINES_DIFFER: Doubt.MACHINES_DIFFER,
    Reason.ONE_PASS: Doubt.FEW_PASSES,
    Reason.FEW_COMMON_PASSES: Doubt.FEW_PASSES,
}
"""What either run's own verdict lacks and this one then lacks too; an interval too wide there is none of it."""
FORBIDDING = frozenset(FORBIDS.values())
"""With one of these a difference is no test: it does not count among those of its table."""


def compare_alone(
    base: Sequence[Trial], new: Sequence[Trial], measure: MeasureSettings, axis: Axis | None = None
) -> Alone:
    """Every overlapped variant that BASE timed, against its counterpart in NEW, before rows are held together.

    Without an axis, of any cases as long as both hold all their Trials.

    Args:
        base: the Trials of the run that sets the standard.
        new: those of the run that is judged.
        measure: the margins, BASE's.
        axis: along which the cases of the two may differ.
    """
    base_held, held = _overlapped(base), _overlapped(new)
    tell_medians([one.sides for one in chain(base_held.values(), held.values())])
    base_rows, new_rows = _rows(base_held, measure), _rows(held, measure)
    difference = cache(_difference)  # T1's is in the row of every T2o
    found = pair(list(base_rows), list(held), axis)
    changes, turned_off = [], []
    not_compared = [NotCompared(place, value) for place, value in found.without_counterpart]
    for at, there in found.pairs:
        if failed := _not_timed(at, there, held[there].sides, axis):
            not_compared.append(failed)
        elif axis is None and (chosen := _chosen_otherwise(at, base_held[at].passes, held[there].passes)):
            not_compared.append(chosen)
        elif not (base_rows[at].ran_tbo or new_rows[there].ran_tbo):
            turned_off.append(at)
        else:
            rows, sides = (base_rows[at], new_rows[there]), (base_held[at].sides, held[there].sides)
            changes.append(_change(*rows, *sides, difference, measure))
    return Alone(
        tuple(base_rows.values()),
        tuple(new_rows.values()),
        tuple(changes),
        tuple(not_compared),
        tuple(place for place in found.only_in_new if place in new_rows),
        tuple(turned_off),
    )


Row = TypeVar("Row")


def joined(shares: Sequence[Alone], base_order: Mapping[str, int], new_order: Mapping[str, int]) -> Alone:
    """What shares of the cases say, as one that held all of them would.

    Args:
        shares: compared without an axis.
        base_order: case_id -> its place in BASE.
        new_order: in NEW.
    """

    def of_all(rows: Callable[[Alone], Iterable[Row]], order: Callable[[Row], Any]) -> tuple[Row, ...]:
        return tuple(sorted((row for share in shares for row in rows(share)), key=order))

    return Alone(
        of_all(lambda share: share.base_rows, lambda row: base_order[row.case_id]),
        of_all(lambda share: share.new_rows, lambda row: new_order[row.case_id]),
        of_all(lambda share: share.changes, lambda row: base_order[row.base.case_id]),
        of_all(lambda share: share.not_compared, lambda row: (row.role is not None, base_order[row.place.ids[0]])),
        of_all(lambda share: share.only_in_new, lambda place: new_order[place.ids[0]]),
        of_all(lambda share: share.turned_off, lambda place: base_order[place.ids[0]]),
    )


def together(alone: Alone) -> Between:
    """The same rows, those UNDECIDED whose difference so long a table shows by chance.

    Tables of their own are BASE's rows, NEW's, the changes and the times. The tests of a table are all that had an
    interval and nothing against them, whatever they said.
    """
    base, new = (
        {id(row): kept for row, kept in zip(rows, compare.true_together(rows), strict=True)}
        for rows in (alone.base_rows, alone.new_rows)
    )
    changes = [_with_rows(change, base[id(change.base)], new[id(change.new)]) for change in alone.changes]
    return Between(_true_together(changes), alone.not_compared, alone.only_in_new, alone.turned_off)


def _with_rows(change: Change, base: Comparison, new: Comparison) -> Change:
    return change if change.base is base and change.new is new else replace(change, base=base, new=new)


class _Held(NamedTuple):
    """What a run holds of an overlapped variant."""

    passes: Passes
    """Of its case."""
    sides: Sides


def _overlapped(trials: Iterable[Trial]) -> dict[Place, _Held]:
    """Every T2o of a run, timed or not."""
    found = {}
    for case, passes in join.by_case(trials).items():
        first = passes[0]
        for variant, sides in overlapped(passes):
            place = Place(first.workload, first.link, variant)
            tell(place, ids=(case, next(iter(sides.on.measured.values())).variant_id))
            found[place] = _Held(passes, sides)
    return found


def _rows(run: Mapping[Place, _Held], measure: MeasureSettings) -> dict[Place, Comparison]:
    """Of those that were timed."""
    return {
        place: compare.off_on(held.passes, place.variant, held.sides, measure)
        for place, held in run.items()
        if held.sides.on.timed
    }


def _not_timed(at: Place, there: Place, sides: Sides, axis: Axis | None) -> NotCompared | None:
    """How NEW's T2o or its T1 first ended without a time, in any pass: what crashes once has not passed."""
    for runs in (sides.on, sides.off):
        if len(runs.timed) < len(runs.measured):
            bad = {p: m for p, m in runs.measured.items() if p not in runs.timed}
            first = next(iter(bad.values()))
            alike = tuple(p for p, m in bad.items() if m.status is first.status)
            value = axis.value(there) if axis else None
            return NotCompared(at, value, first.role, first.status, first.reason, alike)
    return None


def _chosen_otherwise(at: Place, base: Sequence[Trial], new: Sequence[Trial]) -> NotCompared | None:
    """Where ``experts: auto`` became another backend: a change would be the backend's, whose choice may be chance."""
    if at.variant.experts != "auto":
        return None
    became = [sorted({t.experts_choice.experts for t in side if t.experts_choice is not None}) for side in (base, new)]
    then, now = (" and ".join(names) for names in became)
    return None if then == now else NotCompared(at, reason=f"experts auto is {then} in BASE, {now} in NEW")


def _difference(base: Runs, new: Runs) -> Difference | None:
    """Of the log of each pass's median time; None where a run has none."""
    return Difference(base.pass_logs, new.pass_logs) if base.timed and new.timed else None


def _change(
    base: Comparison,
    new: Comparison,
    base_sides: Sides,
    new_sides: Sides,
    difference: Callable[[Runs, Runs], Difference | None],
    measure: MeasureSettings,
) -> Change:
    doubts = tuple(dict.fromkeys(FORBIDS[reason] for reason in (*base.reasons, *new.reasons) if reason in FORBIDS))
    change = None
    if base.estimate is not None and new.estimate is not None:
        change = Difference(base.estimate.pass_logs, new.estimate.pass_logs)
    verdict, reasons = _decided(change, doubts, decide_change, measure)

    def of_both(role: Role, then: Runs, now: Runs) -> tuple[Times, OtherWork | None]:
        known = difference(then, now)
        times = Times(role, then.median_s, now.median_s, known, *_decided(known, doubts, decide_time, measure))
        return times, _other_work(then.timed, now.timed, role)

    off, on = of_both("T1", base_sides.off, new_sides.off), of_both("T2o", base_sides.on, new_sides.on)
    other = tuple(work for _, work in (off, on) if work is not None)
    return Change(base, new, change, verdict, reasons, (off[0], on[0]), other)


def _other_work(base: Mapping[int, Measurement], new: Mapping[int, Measurement], role: Role) -> OtherWork | None:
    """None where a run did not record it, and where it is the same."""
    recorded = [[m.device_work for m in side.values() if m.device_work is not None] for side in (base, new)]
    if not all(recorded):
        return None
    (then, *_), (now, *_) = recorded
    if (then.launches, then.kernels) == (now.launches, now.kernels):
        return None
    one, other = set(then.kernels), set(now.kernels)
    return OtherWork(role, then.launches, now.launches, tuple(sorted(other - one)), tuple(sorted(one - other)))


Decided = tuple[Verdict, tuple[Doubt, ...]]


def _decided(
    difference: Difference | None,
    doubts: tuple[Doubt, ...],
    rule: Callable[[Difference, MeasureSettings], Decided],
    measure: MeasureSettings,
) -> Decided:
    """The rule's verdict, unless something forbids one."""
    if difference is None or doubts:
        return Verdict.UNDECIDED, doubts or (Doubt.FEW_PASSES,)
    return rule(difference, measure)


def decide_change(difference: Difference, measure: MeasureSettings) -> Decided:
    """The margins of a verdict within a run."""
    verdict, reasons = compare.decide(difference, measure)
    return verdict, tuple(FORBIDS[reason] if reason in FORBIDS else Doubt(reason.value) for reason in reasons)


def decide_time(difference: Difference, measure: MeasureSettings) -> Decided:
    """Of a time: a difference must lie beyond the margin and beyond the noise floor, one standard deviation of passes.

    Passes of one run share what may differ from run to run, so their interval alone is too sure of itself.
    """
    low, high, floor = difference.low, difference.high, difference.between_sd
    if low is None or high is None or floor is None:
        return Verdict.UNDECIDED, (Doubt.FEW_PASSES,)
    beyond = max(floor, math.log1p(measure.decide_beyond))
    if math.log(low) > beyond:
        return Verdict.SLOWER, ()
    if math.log(high) < -beyond:
        return Verdict.FASTER, ()
    if low >= 1 - measure.same_within and high <= 1 + measure.same_within:
        return Verdict.SAME, ()
    return Verdict.UNDECIDED, (Doubt.NOISE_FLOOR,)


def _true_together(changes: Sequence[Change]) -> tuple[Change, ...]:
    all_times = _surviving([time for row in changes for time in row.times])
    return tuple(
        row if off is row.times[0] and on is row.times[1] else replace(row, times=(off, on))
        for row, off, on in zip(_surviving(changes), all_times[::2], all_times[1::2], strict=True)
    )


Judged = TypeVar("Judged", Change, Times)


def _surviving(judged: Sequence[Judged]) -> list[Judged]:
    return surviving(judged, _p_value, CLAIMS, {"verdict": Verdict.UNDECIDED, "reasons": (Doubt.FALSE_DISCOVERY,)})


def _p_value(one: Change | Times) -> float | None:
    return one.difference.p_value if one.difference is not None and FORBIDDING.isdisjoint(one.reasons) else None
