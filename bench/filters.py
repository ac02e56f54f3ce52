"""``--filter tokens=1024,engine=streams``: which cases and variants of a sweep to keep."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from bench.cases import Case, with_companions
from bench.errors import BenchError
from bench.hints import did_you_mean
from moe_impl.options import Variant, Workload

OPTION = "--filter"


def _text_of(attribute: str) -> Callable[[Any], str]:
    read = attrgetter(attribute)
    return lambda thing: "" if (value := read(thing)) is None else str(value)


CASE_KEYS: dict[str, Callable[[Case], str]] = {
    **{field.name: _text_of(f"workload.{field.name}") for field in fields(Workload)},
    "model": _text_of("workload.model.name"),
    "link": _text_of("link.name"),
}
VARIANT_KEYS: dict[str, Callable[[Variant], str]] = {
    **{field.name: _text_of(field.name) for field in fields(Variant)},
    # T1 and T2s have these for form's sake only
    "order": lambda variant: variant.order if variant.role == "T2o" else "",
    "comm_priority": lambda variant: variant.comm_priority if variant.role == "T2o" else "",
}
"""Key -> how a case or variant spells it: every field of Workload and Variant, and the link's name; empty for None."""

Terms = dict[str, dict[str, None]]
"""Key -> its values, in the order given."""


def parse(text: str) -> Terms:
    """``"tokens=16,tokens=64,engine=streams"`` to {key: values}; a repeated key adds values.

    Raises:
        BenchError: no KEY=VALUE, or a key that is no field of a case or variant.
    """
    terms: Terms = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if terms and key and not equals:
            last, values = next(reversed(terms.items()))
            spelled = f"{last}={next(reversed(values))},{last}={key}"
            raise BenchError(f"{OPTION}: found {part!r} without its key; `or` is spelled {spelled}")
        if not (key and equals and value):
            raise BenchError(
                f"{OPTION}: found {part!r}, expected KEY=VALUE[,KEY=VALUE...], such as tokens=1024,engine=streams"
            )
        allowed = [*CASE_KEYS, *VARIANT_KEYS]
        if key not in allowed:
            raise BenchError(
                f"{OPTION}: unknown key {key}{did_you_mean(key, allowed) or ','} allowed: {', '.join(allowed)}"
            )
        terms.setdefault(key, {})[value] = None
    return terms


def select(cases: Sequence[Case], text: str | None) -> list[Case]:
    """The cases that match, each with the variants that match and the T1 and T2s these are compared with.

    Args:
        cases: of one sweep.
        text: the option's value; None keeps everything.

    Raises:
        BenchError: a malformed filter, a value that no case or variant has, or terms that never hold together.
    """
    if text is None:
        return list(cases)
    terms = parse(text)
    _refuse_unmatched(cases, terms)
    kept = []
    for case in cases:
        if all(read(case) in terms[key] for key, read in CASE_KEYS.items() if key in terms):
            matching = [variant for variant in case.variants if _matches(variant, terms)]
            variants = tuple(dict.fromkeys(one for variant in matching for one in with_companions(variant)))
            if variants:
                kept.append(Case(case.workload, case.link, variants))
    if not kept:
        raise BenchError(f"{OPTION}: no case matches all of {text}")
    return kept


def _matches(variant: Variant, terms: Terms) -> bool:
    return all(read(variant) in terms[key] for key, read in VARIANT_KEYS.items() if key in terms)


def _refuse_unmatched(cases: Sequence[Case], terms: Terms) -> None:
    problems = []
    for key, values in terms.items():
        if key in CASE_KEYS:
            present = _distinct(CASE_KEYS[key](case) for case in cases)
        else:
            present = _distinct(VARIANT_KEYS[key](variant) for case in cases for variant in case.variants)
        for value in sorted(values.keys() - set(present)):
            meant = did_you_mean(value, present) or ","
            problems.append(f"{OPTION}: {key}={value} matches nothing{meant} this sweep has: {', '.join(present)}")
    if problems:
        raise BenchError(*problems)


def _distinct(values: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]
