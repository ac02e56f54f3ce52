"""Sentences on what a report lacks, and what checks say of the rest. Text from the model."""

from collections.abc import Iterable

from bench.render import words
from bench.report_model import Missing, NotTimed, ReportModel

MISSING_SHOWN = 3
"""Groups of Trials that are not there and that one line names."""


def checks_passed(model: ReportModel) -> str:
    """``70 of 70 oracle checks passed``."""
    return f"{model.checks.passed} of {model.checks.made} oracle checks passed"


def checks(model: ReportModel) -> str:
    """``70 of 70 oracle checks passed, largest relative error 0.0048, tolerance 0.01.``"""
    found = model.checks
    if not found.made:
        return "No oracle check was made."
    largest = "not finite" if found.largest_error is None else f"{found.largest_error:.2g}"
    tolerance = " or ".join(f"{value:g}" for value in found.tolerances)
    said = f"{checks_passed(model)}, largest relative error {largest}, tolerance {tolerance}."
    if not found.disturbed:
        return said
    spread = f"differed by up to {found.largest_spread:.1e}" if found.largest_spread else "were the same to the bit"
    return f"{said} Overlapped outputs {spread} over {found.disturbed_runs} more runs with random host delays."


def gaps(model: ReportModel) -> list[str]:
    """What goes right under the headline: how many measurements failed, and how many are missing; none of neither."""
    return [*_failed(model), *coverage(model)]


def _failed(model: ReportModel) -> list[str]:
    """``3 measurements failed (2 oom, 1 hang), at 4096 tokens: see Failed.``"""
    how: dict[str, int] = {}
    for entry in model.failures:
        how[entry.status] = how.get(entry.status, 0) + len(entry.passes)
    if not how:
        return []
    number = sum(how.values())
    tokens = words.counts(tuple(sorted({entry.workload.tokens for entry in model.failures})))
    told = ", ".join(f"{count} {status}" for status, count in how.items())
    return [f"{number} measurement{'s' if number > 1 else ''} failed ({told}), at {tokens} tokens: see Failed."]


def coverage(model: ReportModel) -> list[str]:
    """A line where less is reported than the sweep file asks for, whatever the cause; else none."""
    found = model.coverage
    if found.complete:
        return []
    partial = f", {found.partial} of them without all their variants" if found.partial else ""
    named = [_missing(one) for one in found.missing[:MISSING_SHOWN]]
    more = len(found.missing) - len(named)
    named += [f"{more} more like it" if more == 1 else f"{more} more like these"] if more else []
    missing = f" Missing: {'; '.join(named)}." if named else ""
    return [
        f"Incomplete: {found.trials} of {found.planned} Trials{partial} (filtered, or not run to the end).{missing}"
    ]


def _missing(one: Missing) -> str:
    """``precision=bf16 at 256 and 1024 tokens in pass 5``, or ``every case in pass 4 and 5``."""
    passes = words.counts(tuple(index + 1 for index in one.passes))
    named = f"{one.case} at" if one.case else "at"
    where = f"{named} {words.counts(one.tokens)} tokens" if one.tokens else "every case"
    return f"{where} in pass {passes}"


def not_timed(entry: NotTimed) -> str:
    """Where, how and why a variant gave no time, in one line whatever the reason holds."""
    return f"{words.count(entry.workload.tokens)} tokens, {_place(entry)}, {entry.variant.label}: {_outcome(entry)}"


def not_timed_together(entries: Iterable[NotTimed]) -> list[str]:
    """The same for many, one line for variants and token counts that differ in nothing else."""
    tokens: dict[tuple[str, str, str], list[int]] = {}
    for entry in entries:
        tokens.setdefault((_place(entry), _outcome(entry), entry.variant.label), []).append(entry.workload.tokens)
    variants: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for (place, outcome, label), found in tokens.items():
        variants.setdefault((place, outcome, tuple(found)), []).append(label)
    return [
        f"{words.counts(found)} tokens, {place}, {', '.join(labels)}: {outcome}"
        for (place, outcome, found), labels in variants.items()
    ]


def _place(entry: NotTimed) -> str:
    return ", ".join((entry.workload.precision, words.link(entry.link), *entry.axes))


def _outcome(entry: NotTimed) -> str:
    passes = words.counts(tuple(index + 1 for index in entry.passes))
    return f"{entry.status} in pass {passes}: {' '.join((entry.reason or 'no reason given').split())}"
