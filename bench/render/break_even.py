"""Sentences about where TBO begins to pay, and whether that hangs on the link. Text from the model; decides nothing."""

from bench.deciding.break_even import BreakEven, Kind
from bench.deciding.compare import Verdict
from bench.render import words
from bench.report_model import Section

DEPENDS = {
    True: "Depends on the link",
    False: "Does not depend on the link's bandwidth within these bounds",
    None: "Unknown whether it depends on the link",
}


def verdicts(even: BreakEven) -> str:
    """``SLOWER at 128 and 256, SAME at 512``."""
    measured = [tokens for tokens, _ in even.verdicts]
    found = [(verdict, even.tokens_with(verdict)) for verdict in Verdict]
    return ", ".join(f"{verdict} at {words.counts_of(tokens, measured)}" for verdict, tokens in found if tokens)


def sentence(even: BreakEven) -> str:
    """The break-even line below a series' table."""
    if even.kind is Kind.CROSSING:
        above = words.count(even.smallest_faster or 0)
        known = even.largest_not_faster is not None
        bracket = f"between {words.count(even.largest_not_faster or 0)} and {above}" if known else f"below {above}"
        return f"Break-even {bracket} tokens{_crossing(even)}."
    if even.kind is Kind.NO_CLAIM:
        return f"Break-even: no claim ({'; '.join(map(words.limit, even.why))})."
    if even.kind is Kind.NOT_MONOTONE:
        return f"Break-even: not monotone ({verdicts(even)})."
    if even.kind is Kind.UNDECIDED:
        return f"Break-even: undecided ({verdicts(even)})."
    if even.kind is Kind.EVERYWHERE:
        return f"Break-even: below {words.count(even.verdicts[0][0])} tokens, the smallest count measured, if anywhere."
    return f"Break-even: none up to {words.count(even.verdicts[-1][0])} tokens, the largest count measured."


def link_sensitivity(section: Section) -> list[str]:
    """``Depends on the link: at bandwidth x0.5, x1 and x2, 1024 tokens are SLOWER, SLOWER and FASTER.``

    None where nobody asked.
    """
    if not section.what_ifs:
        return []
    factors = sorted({1.0, *(one.factor for one in section.what_ifs)})
    told: dict[int, dict[float, str]] = {}
    for one in section.what_ifs:
        at = told.setdefault(one.comparison.workload.tokens, {1.0: one.base.value})
        at[one.factor] = one.comparison.verdict.value
    rows = (
        f"{words.count(tokens)} tokens are {words.joined([at.get(factor, 'not measured') for factor in factors])}"
        for tokens, at in sorted(told.items())
    )
    where = f"at bandwidth {words.joined([f'x{factor:g}' for factor in factors])}"
    return [f"{DEPENDS[section.depends_on_link]}: {where}, {', '.join(rows)}."]


def _crossing(even: BreakEven) -> str:
    """No interval: noise is all that one would hold, and the line between two token counts is the larger error."""
    if even.crossing_between is None:
        return "; no crossing of the speed-up to interpolate"
    low, high = map(words.count, even.crossing_between)
    if even.close_crossing is None:
        return "" if even.crossing_between == even.bracket else f"; speed-up crosses 1 between {low} and {high}"
    return f"; speed-up crosses 1 at about {words.about(even.close_crossing)} (interpolated between {low} and {high})"
