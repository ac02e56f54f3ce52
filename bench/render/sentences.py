"""Sentences that every output shares: headline, answers, captions, noise. Text from the model; decides nothing."""

from collections.abc import Iterable

from bench.deciding.break_even import BreakEven, Kind
from bench.deciding.compare import Verdict
from bench.render import words
from bench.report_model import NotTimed, ReportModel, Section

CPU_BANNER = "Functional check on a CPU, no performance claim."


def headline(model: ReportModel) -> str:
    """The first line of every output."""
    if model.on_cpu:
        checks = f"{model.checks.passed} of {model.checks.made} oracle checks passed."
        return f"{CPU_BANNER} {checks}" if model.checks.made else CPU_BANNER
    section = model.headline
    if section is None:
        return "No answer: no overlapped variant was timed."
    return answer(section, model)


def answer(section: Section, model: ReportModel) -> str:
    """A series' answer in one sentence; it names shape and link where the model has more than one of them."""
    even = section.break_even
    named = words.series if len(model.panels) > 1 else words.short_series
    name = f"TBO ({named(even.series)})"
    row = section.best
    best = f"{words.speedup(row.comparison)} at {words.count(row.tokens)}" if row else words.UNKNOWN
    if even.kind is Kind.CROSSING:
        return f"{name} pays from {words.count(even.smallest_faster or 0)} tokens on: {best}{_slower(even)}."
    if even.kind is Kind.EVERYWHERE:
        where = "the one token count" if len(even.verdicts) == 1 else "every token count"
        return f"{name} pays at {where} measured: {best}."
    if even.kind is Kind.NOT_MONOTONE:
        faster = words.counts(even.tokens_with(Verdict.FASTER))
        return f"{name} pays at {faster} tokens but not at every larger count: {verdicts(even)}."
    if even.kind is Kind.NOWHERE:
        return f"{name} pays at no token count measured; best {best} ({verdicts(even)})."
    return f"{name}: no claim, {'; '.join(even.why)}."


def full_answer(section: Section, model: ReportModel) -> list[str]:
    """The answer and, where it is not the same, the break-even."""
    even = section.break_even
    return [answer(section, model), *([] if even.kind is Kind.NO_CLAIM else [break_even(even)])]


def _slower(even: BreakEven) -> str:
    """``; slower up to 512``, or the list where other verdicts lie between."""
    slower = even.tokens_with(Verdict.SLOWER)
    if not slower:
        return ""
    smallest_measured = tuple(tokens for tokens, _ in even.verdicts[: len(slower)])
    if slower == smallest_measured:
        return f"; slower up to {words.count(slower[-1])}"
    return f"; slower at {words.counts(slower)}"


def verdicts(even: BreakEven) -> str:
    """``SLOWER at 128 and 256, SAME at 512``."""
    found = [(verdict, even.tokens_with(verdict)) for verdict in Verdict]
    return ", ".join(f"{verdict} at {words.counts(tokens)}" for verdict, tokens in found if tokens)


def break_even(even: BreakEven) -> str:
    """The break-even line below a series' table."""
    if even.kind is Kind.CROSSING:
        below, above = words.count(even.largest_not_faster or 0), words.count(even.smallest_faster or 0)
        bracket = f"Break-even between {below} and {above} tokens"
        if even.crossing is None:
            return f"{bracket}; the speed-up itself stays above 1 in the range measured."
        low, high = (_end(end, even) for end in (even.crossing_low, even.crossing_high))
        return f"{bracket}; speed-up crosses 1 at about {words.count(even.crossing)} tokens [{low}, {high}]."
    if even.kind is Kind.NO_CLAIM:
        return f"Break-even: no claim ({'; '.join(even.why)})."
    if even.kind is Kind.NOT_MONOTONE:
        return f"Break-even: not monotone ({verdicts(even)})."
    if even.kind is Kind.EVERYWHERE:
        return f"Break-even: below {words.count(even.verdicts[0][0])} tokens, the smallest count measured, if anywhere."
    return f"Break-even: none up to {words.count(even.verdicts[-1][0])} tokens, the largest count measured."


def _end(tokens: float | None, even: BreakEven) -> str:
    """An end of the crossing's interval; one that was not found lies below what was measured."""
    return f"below {words.count(even.verdicts[0][0])}" if tokens is None else words.count(tokens)


def undecided(section: Section) -> list[str]:
    """One line a set of reasons, those left out that a label says: ``UNDECIDED at 1024: the interval ...``."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for row in section.rows:
        reasons = tuple(reason for reason in row.comparison.reasons if reason not in section.labels)
        if reasons:
            groups.setdefault(reasons, []).append(row.tokens)
    return [f"UNDECIDED at {words.counts(tuple(tokens))}: {'; '.join(reasons)}." for reasons, tokens in groups.items()]


def caption(section: Section) -> str:
    """The mode of every number in a section's table, and what they must say of themselves."""
    variant = section.series.variant
    known = {row.comparison.estimate for row in section.rows if row.comparison.estimate is not None}
    levels = sorted({(e.passes, e.confidence) for e in known})
    passes = [f"{n} passes ({words.percent(level)} interval)" if n > 1 else "1 pass" for n, level in levels]
    mode = [
        f"launch {variant.launch}",
        f"receive {variant.receive}",
        f"timer {' and '.join(section.timers)}",
        *([" or ".join(passes)] if passes else []),
    ]
    return "; ".join([", ".join(mode), *section.labels]) + "."


def doubts(section: Section) -> list[str]:
    """One line a kind of doubt, told by the words before its colon; the figures after it are in the results."""
    found: dict[str, list[int]] = {}
    for row in section.rows:
        for kind in dict.fromkeys(flag.split(":")[0] for flag in row.comparison.flags):
            found.setdefault(kind, []).append(row.tokens)
    return [f"Doubt at {words.counts(tuple(tokens))}: {kind}." for kind, tokens in found.items()]


def noise(model: ReportModel) -> str:
    """The noise floor and what it lets one see."""
    floor = model.noise
    return (
        f"Noise floor (medians): paired ratios {words.percent(floor.within_sd)} within a pass, "
        f"pass means {words.percent(floor.between_sd)} between passes. Minimum detectable effect: "
        f"{words.percent(floor.min_detectable)}, at worst {words.percent(floor.min_detectable_worst)}."
    )


def rule(model: ReportModel) -> str:
    """How verdicts were reached."""
    settings = model.measure
    return (
        f"FASTER or SLOWER: the whole interval lies beyond 1 ± {words.percent(settings.decide_beyond)}; "
        f"SAME: within 1 ± {words.percent(settings.same_within)}; else UNDECIDED."
    )


def machine(model: ReportModel) -> str:
    """``NVIDIA H100 80GB HBM3, 132 SMs, torch 2.13.0``."""
    texts = []
    for found in model.machines:
        parts = [found.name, *([f"{found.sm_count} SMs"] if found.sm_count else [])]
        texts.append(", ".join([*parts, *([f"torch {found.torch_version}"] if found.torch_version else [])]))
    return "; ".join(texts)


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
    return f"{entry.workload.precision}, {words.link(entry.link)}"


def _outcome(entry: NotTimed) -> str:
    passes = words.counts(tuple(index + 1 for index in entry.passes))
    return f"{entry.status} in pass {passes}: {' '.join((entry.reason or 'no reason given').split())}"
