"""What verdicts are worth to an operator: milliseconds of a step, the best split factor, what fits in memory. Text."""

from collections.abc import Sequence
from typing import Any

from bench import units
from bench.deciding.best_split import ANY_SPLIT, BestSplit
from bench.deciding.compare import NOISE_ALONE
from bench.deciding.fits import Fits
from bench.deciding.join import Series, at_any_tokens
from bench.deciding.tuned import Tuned
from bench.render import words
from bench.report_model import ReportModel, Section


def steps(section: Section) -> list[str]:
    """``A step over 58 MoE layers (extrapolated from 4): saves 18.2 ms at 4096 tokens; costs 6.1 ms at 256.``"""
    known = [(row.tokens, row.step) for row in section.rows if row.step is not None]
    if not known:
        return []
    first = known[0][1]
    said = []
    for word, sign in (("saves", 1), ("costs", -1)):
        times = [(tokens, step.saved_s * sign) for tokens, step in known if step.saved_s * sign > 0]
        if times:
            each = ", ".join(f"{units.format_seconds(seconds)} at {words.count(tokens)}" for tokens, seconds in times)
            said.append(f"{word} {each}")
    measured = first.measured_layers
    source = "" if measured == first.moe_layers else f" (extrapolated from {measured})"
    return [f"A step over {first.moe_layers} MoE layers{source}: {'; '.join(said)} tokens."]


def best_splits(model: ReportModel) -> list[str]:
    """``Best split factor (streams triton, bf16): x2 at 256, 0.772x [0.771, 0.773]; x4 at 4096, ....``"""
    groups: dict[Series, list[BestSplit]] = {}
    for best in model.best_splits:
        groups.setdefault(best.group, []).append(best)
    named = words.series if len({(one.workload, one.link) for one in groups}) > 1 else words.short_series
    said = []
    for group, found in groups.items():
        name = named(group).replace(f" x{ANY_SPLIT}", "", 1)
        said.append(f"Best split factor ({name}): {'; '.join(map(_best_split, found))}.")
    return said


def _best_split(found: BestSplit) -> str:
    told = "" if found.told_apart else f", not told from x{found.next.variant.split_factor}"
    where = f"x{found.best.variant.split_factor} at {words.count(found.best.workload.tokens)}"
    return f"{where}, {words.speedup(found.best)}{told}"


def tuned(model: ReportModel) -> list[str]:
    """``Tuned (bf16): streams x2 triton against off triton at 4096, 1.210x [1.203, 1.217] FASTER. Picked ..``

    What forbids a verdict, such as too few passes, is one line with the token counts.
    """
    groups: dict[tuple[Any, ...], list[Tuned]] = {}
    forbidden: dict[tuple[str, ...], list[int]] = {}
    for found in model.tuned:
        if NOISE_ALONE.issuperset(found.reasons):
            groups.setdefault(_alike(found), []).append(found)
        else:
            forbidden.setdefault(found.reasons, []).append(found.workload.tokens)
    said = [_picked(rows) for rows in groups.values()]
    for reasons, tokens in forbidden.items():
        counts = words.counts(tuple(dict.fromkeys(tokens)))
        said.append(f"Tuned: UNDECIDED at {counts}: {'; '.join(reasons)}.")
    return said


def _alike(found: Tuned) -> tuple[Any, ...]:
    """What the rows of one line share."""
    place = at_any_tokens(found.workload), found.link
    return *place, found.candidates_on, found.candidates_off, found.picked_in, found.judged_in


def _picked(rows: Sequence[Tuned]) -> str:
    first = rows[0]
    picked, judged = (words.counts(tuple(p + 1 for p in passes)) for passes in (first.picked_in, first.judged_in))
    return (
        f"Tuned ({first.workload.precision}, {words.link(first.link)}): {'; '.join(map(_tuned, rows))}. "
        f"Picked of {first.candidates_on} on and {first.candidates_off} off in passes {picked}, judged in {judged}."
    )


def _tuned(found: Tuned) -> str:
    known = found.estimate
    ratio = words.UNKNOWN if known is None else words.factor(known.speedup, known.low, known.high)
    where = f"{found.on.label} against {found.off.label} at {words.count(found.workload.tokens)}"
    return f"{where}, {ratio} {found.verdict}{f' ({found.reasons[0]})' if found.reasons else ''}"


def lines(model: ReportModel) -> list[str]:
    """What a whole run is worth, beside its series' answers."""
    return [*best_splits(model), *tuned(model), *fits(model)]


def fits(model: ReportModel) -> list[str]:
    """``Memory (streams x2 triton, bf16): off fits up to 4096 tokens, on up to 8192; 8192 fits on only.``"""
    return [f"Memory ({words.series(found.series)}): {_fits(found)}." for found in model.fits]


def _fits(found: Fits) -> str:
    largest = [
        f"up to {words.count(max(side.fits))} tokens" if side.fits else "nowhere" for side in (found.off, found.on)
    ]
    only = [
        f"{words.counts(tokens)} {'fit' if len(tokens) > 1 else 'fits'} {name} only"
        for name, tokens in (("on", found.on_only), ("off", found.off_only))
        if tokens
    ]
    return "; ".join([f"off fits {largest[0]}, on {largest[1]}", *only])
