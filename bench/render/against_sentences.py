"""Sentences about run against run. Text from the model; decides nothing."""

from collections.abc import Iterable, Sequence
from statistics import median

from bench import units
from bench.against import Against, Section
from bench.deciding.across import Axis, Place, axis_named
from bench.deciding.changes import Change, Doubt, NotCompared, OtherWork
from bench.deciding.compare import Comparison, Verdict
from bench.deciding.facts import Differing
from bench.deciding.join import Series, series_of
from bench.errors import Exit
from bench.render import sentences, words
from bench.results import PERTURBED

MOST_KERNELS = 3
"""Named in a sentence; --json names all."""
OUTCOMES = {
    Exit.DONE: "passed",
    Exit.REGRESSION: "regression",
    Exit.UNDECIDED: "undecided",
    Exit.NOT_COMPARABLE: "not comparable",
}


def headline(model: Against) -> str:
    """The first line: ``TBO's speed-up is lower in NEW in 2 of 14 comparisons: worst 0.961x [0.955, 0.967] at ...``.

    One run across an axis: a sentence a pair of its values, ``... is lower at nvfp4 than at bf16 in ...``.
    """
    if model.on_cpu:
        return sentences.CPU_BANNER
    rows = model.between.changes
    if not rows:
        return "Nothing was compared."
    axis = axis_named(model.across) if model.same_run else None
    groups: dict[str, list[Change]] = {}
    for row in rows:
        where = "in NEW" if axis is None else f"at {_value(axis, row.new)} than at {_value(axis, row.base)}"
        groups.setdefault(where, []).append(row)
    return " ".join(f"TBO's speed-up is lower {where} in {_how_many(some)}." for where, some in groups.items())


def _value(axis: Axis, side: Comparison) -> str:
    return axis.value(Place(side.workload, side.link, side.variant))


def _how_many(rows: Sequence[Change]) -> str:
    slower = [row for row in rows if row.verdict is Verdict.SLOWER]
    if not slower:
        return f"none of {_many(len(rows))}: {_tally(row.verdict for row in rows)}"
    worst = min(slower, key=lambda row: row.difference.ratio if row.difference else 1.0)
    where = f"at {words.count(worst.tokens)} tokens, {words.short_series(_series(worst))}"
    return f"{len(slower)} of {_many(len(rows))}: worst {change(worst)} {where}"


def times(model: Against) -> list[str]:
    """``Times of NEW against BASE: 21 SAME, 7 UNDECIDED.``: what a ratio of two times cannot show."""
    found = [time.verdict for row in model.between.changes for time in row.times]
    return [f"Times of NEW against BASE: {_tally(found)}."] if found and not model.on_cpu else []


def _tally(verdicts: Iterable[Verdict]) -> str:
    found = list(verdicts)
    return ", ".join(f"{found.count(verdict)} {verdict}" for verdict in Verdict if verdict in found)


def _series(row: Change) -> Series:
    return series_of(row.new.workload, row.new.link, row.new.variant)


def _many(comparisons: int) -> str:
    return f"{units.format_count(comparisons)} comparison{'s' if comparisons > 1 else ''}"


def change(row: Change) -> str:
    """``0.961x [0.955, 0.967]``."""
    found = row.difference
    return words.UNKNOWN if found is None else words.factor(found.ratio, found.low, found.high)


def gate(model: Against) -> list[str]:
    """``Gate: regression, exit code 1.``"""
    return [] if model.gate is None else [f"Gate: {OUTCOMES[model.gate]}, exit code {int(model.gate)}."]


def sides(model: Against) -> str:
    """Which folder is which."""
    if model.same_run and model.across:
        return f"{model.base}, across {model.across}: BASE stands left of -> below, NEW right of it."
    same = " They are one folder: every change is 0, and UNDECIDED is what such passes cannot tell."
    across = f", across {model.across}" if model.across else ""
    return f"BASE {model.base}, NEW {model.new}{across}.{same if model.same_run else ''}"


def rule(model: Against) -> list[str]:
    """What a change is, and how verdicts were reached."""
    times = "count in the gate too" if model.absolute else "count in no gate without --absolute"
    return [
        "Change: TBO's speed-up T1/T2o in NEW over that in BASE; above 1 TBO gains more. " + sentences.rule(model),
        "Times: SLOWER or FASTER only beyond the noise floor between processes as well; they " + times + ".",
    ]


def detectable(model: Against) -> list[str]:
    """How small a change these passes could have told."""
    known = [row.difference.min_detectable for row in model.between.changes if row.difference is not None]
    found = [value for value in known if value is not None]
    if not found:
        return []
    return [f"Minimum detectable change: {words.percent(median(found))}, at worst {words.percent(max(found))}."]


def title(section: Section) -> str:
    """The series; both where they differ."""
    base, new = section.base, words.series(section.new)
    over = f" · link {words.link(base.link)}" if base.link != section.new.link else ""
    return new if base == section.new else f"{words.short_series(base)}{over} -> {new}"


def caption(section: Section) -> str:
    """The mode of every number in a section's tables, and what they must say of themselves."""
    sides = [side for row in section.rows for side in (row.base, row.new)]
    timers = tuple(dict.fromkeys(timer for side in sides for timer in side.timers))
    levels = sorted({(d.passes, d.confidence) for row in section.rows if (d := row.difference) is not None})
    passes = [f"{base} against {new} passes ({words.percent(level)} interval)" for (base, new), level in levels]
    labels = dict.fromkeys(label for side in sides for label in side.labels)
    mode = sentences.mode(section.new.variant, timers)
    return "; ".join([", ".join([mode, *([" or ".join(passes)] if passes else [])]), *labels]) + "."


def undecided(section: Section) -> list[str]:
    """``UNDECIDED at 128 and 256: the interval lies on both sides of 1.``"""
    return _grouped((row.reasons, "", row.tokens) for row in section.rows)


def undecided_times(section: Section) -> list[str]:
    """``UNDECIDED T1 at 128: ...``, where it is not what the change says already."""
    return _grouped(
        (tuple(reason for reason in time.reasons if reason not in row.reasons), f" {time.role}", row.tokens)
        for row in section.rows
        for time in row.times
    )


def other_work(section: Section) -> list[str]:
    """``Work of T2o differs at 512 and 1024: 812 -> 930 launches an iteration; kernels 1 new (a), 2 gone (b, c).``"""
    groups: dict[tuple[str, str], list[int]] = {}
    for row in section.rows:
        for work in row.other_work:
            groups.setdefault((work.role, _work(work)), []).append(row.tokens)
    return [
        f"Work of {role} differs at {words.counts(tuple(tokens))}: {said}." for (role, said), tokens in groups.items()
    ]


def _work(work: OtherWork) -> str:
    said = []
    if work.base_launches != work.new_launches:
        said.append(f"{work.base_launches} -> {work.new_launches} launches an iteration")
    kernels = [(work.new_kernels, "new"), (work.gone_kernels, "gone")]
    named = [f"{len(names)} {how} ({_first(names)})" for names, how in kernels if names]
    if named:
        said.append(f"kernels {', '.join(named)}")
    return "; ".join(said)


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_KERNELS])
    return shown if len(names) <= MOST_KERNELS else f"{shown}, .."


def _grouped(reasons: Iterable[tuple[Sequence[Doubt], str, int]]) -> list[str]:
    groups: dict[tuple[str, str], list[int]] = {}
    for why, what, tokens in reasons:
        if why:
            groups.setdefault(("; ".join(why), what), []).append(tokens)
    return [f"UNDECIDED{what} at {words.counts(tuple(tokens))}: {why}." for (why, what), tokens in groups.items()]


def doubts(model: Against, section: Section) -> list[str]:
    """What speaks against a section's times; a disturbed stage pass does not, no time here comes from one."""
    found = words.by_kind_of_doubt((row.tokens, (*row.base.flags, *row.new.flags)) for row in section.rows)
    found.pop(PERTURBED, None)
    said = [f"Doubt at {words.counts(tuple(tokens))}: {kind}." for kind, tokens in found.items()]
    return [*(f"Doubt in every row: {differing(fact)}." for fact in model.unlike), *said]


def differing(fact: Differing) -> str:
    """``driver: 570.1 in BASE, 580.2 in NEW``."""
    return f"{fact.name}: {words.fact(fact.base)} in BASE, {words.fact(fact.new)} in NEW"


def not_compared(entries: Iterable[NotCompared]) -> list[str]:
    """One line for token counts that differ in nothing else."""
    return _places((entry.place, f": {_why(entry)}") for entry in entries)


def _why(entry: NotCompared) -> str:
    at = f" at {entry.value}" if entry.value else ""
    if entry.status is None:
        return entry.reason or f"not in NEW{at}"
    passes = words.counts(tuple(index + 1 for index in entry.passes))
    reason = " ".join((entry.reason or "no reason given").split())
    return f"{entry.role} {entry.status} in pass {passes} of NEW{at}: {reason}"


def places(found: Iterable[Place]) -> list[str]:
    """One line for token counts that differ in nothing else."""
    return _places((place, "") for place in found)


def _places(found: Iterable[tuple[Place, str]]) -> list[str]:
    tokens: dict[tuple[str, str], list[int]] = {}
    for place, said in found:
        series = words.series(series_of(place.workload, place.link, place.variant))
        tokens.setdefault((series, said), []).append(place.workload.tokens)
    return [f"{words.counts(tuple(counts))} tokens, {series}{said}" for (series, said), counts in tokens.items()]
