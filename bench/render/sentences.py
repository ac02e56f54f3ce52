"""Sentences that every output shares: headline, answers, captions, noise. Text from the model; decides nothing."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from bench.deciding.break_even import BreakEven, Kind
from bench.deciding.compare import CLAIMS, Verdict
from bench.deciding.discovery import FALSE_DISCOVERY_RATE
from bench.deciding.join import Series, series_of
from bench.deciding.off_against_off import OffAgainstOff
from bench.deciding.stats import Estimate
from bench.measure.settings import MeasureSettings
from bench.naming import machine_name
from bench.render import break_even, words
from bench.report_model import Missing, NotTimed, ReportModel, Section
from moe_impl.options import Machine, Variant

ROOFLINE = (
    "FLOPs and bytes that the layer must do and move (balanced routing), over the instrumented stage time. Roofline: "
    "this GPU's best product of 8192 x 8192 matrices (bf16, or FP8) and best copy, measured before the sweep."
)
ACTIVATIONS = "The most that was allocated in an iteration over what was there before it, weights left out."
CLOCKS = (
    "The case's GPU between rounds, so all its variants together; what came and went within a round is not seen. Wall "
    "time decides; this explains: overlap draws more power."
)
MISSING_SHOWN = 3
"""Groups of Trials that are not there and that one line names."""
CPU_BANNER = "Functional check on a CPU, no performance claim."


class Measured(Protocol):
    """What one run and a pair of runs both tell."""

    @property
    def machines(self) -> tuple[Machine, ...]: ...
    @property
    def measure(self) -> MeasureSettings: ...


def headline(model: ReportModel) -> str:
    """The first line of every output: an answer, how sure its speed-up is, and what the other series say beside it."""
    if model.on_cpu:
        said = [
            CPU_BANNER,
            *([f"{_checks_passed(model)}."] if model.checks.made else []),
            *([_nothing_overlapped(model)] if model.alone else []),
        ]
        return " ".join(said)
    if model.alone:
        return _nothing_overlapped(model)
    section = model.headline
    if section is None:
        return "No answer: no overlapped variant was timed."
    return " ".join([f"{answer(section, model).removesuffix('.')}{_confidence(section)}.", *_among(section, model)])


def _confidence(section: Section) -> str:
    """`` (95 % intervals over 5 passes)``; none where the speed-up that is quoted has no interval."""
    known = section.best.comparison.estimate if section.best else None
    if known is None or known.passes < 2 or section.break_even.kind is Kind.NO_CLAIM:
        return ""
    return f" ({_interval(known)})"


def _interval(known: Estimate) -> str:
    """``95 % intervals over 5 passes``."""
    return f"{words.percent(known.confidence)} intervals over {known.passes} passes"


def _other_intervals(headline: Section, model: ReportModel) -> str:
    """``; bf16: 99 % intervals over 4 passes`` of series that have others than the headline; nothing without any."""
    quoted = headline.best.comparison.estimate if headline.best else None
    others: dict[str, list[Series]] = {}
    for section in model.sections:
        known = section.best.comparison.estimate if section.best else None
        if known is not None and quoted is not None and 1 < known.passes != quoted.passes:
            others.setdefault(_interval(known), []).append(section.series)
    named = {
        text: words.short_series(found[0]) if len(found) == 1 else f"{len(found)} series"
        for text, found in others.items()
    }
    return "".join(f"; {name}: {text}" for text, name in named.items())


def _among(headline: Section, model: ReportModel) -> list[str]:
    """``Of 4 series, 1 pays from some token count on; at 4096 tokens they lie at 0.950x to 1.202x.``

    The headline quotes the most favourable one; none where it is the only one.
    """
    if len(model.sections) < 2:
        return []
    paying = sum(section.break_even.kind in (Kind.CROSSING, Kind.EVERYWHERE) for section in model.sections)
    said = f"Of {len(model.sections)} series, {paying} {'pays' if paying == 1 else 'pay'} from some token count on"
    tokens = headline.best.tokens if headline.best else None
    rows = (row for section in model.sections for row in section.rows if row.tokens == tokens)
    speedups = [row.comparison.speedup for row in rows if row.comparison.ran_tbo and row.comparison.speedup is not None]
    others = _other_intervals(headline, model)
    if tokens is None or len(speedups) < 2:
        return [f"{said}{others}."]
    ends = dict.fromkeys(f"{value:.3f}x" for value in (min(speedups), max(speedups)))
    return [f"{said}; at {words.count(tokens)} tokens they lie at {' to '.join(ends)}{others}."]


def _checks_passed(model: ReportModel) -> str:
    return f"{model.checks.passed} of {model.checks.made} oracle checks passed"


def checks(model: ReportModel) -> str:
    """``70 of 70 oracle checks passed, largest relative error 0.0048, tolerance 0.01.``"""
    found = model.checks
    if not found.made:
        return "No oracle check was made."
    largest = "not finite" if found.largest_error is None else f"{found.largest_error:.2g}"
    tolerance = " or ".join(f"{value:g}" for value in found.tolerances)
    said = f"{_checks_passed(model)}, largest relative error {largest}, tolerance {tolerance}."
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


def answer(section: Section, model: ReportModel) -> str:
    """A series' answer in one sentence; it names shape and link where the model has more than one of them."""
    even = section.break_even
    named = words.series if len(model.panels) > 1 else words.short_series
    name = f"TBO ({named(even.series)})"
    row = section.best
    best = f"{words.speedup(row.comparison)} at {words.count(row.tokens)}" if row else words.UNKNOWN
    if even.kind is Kind.CROSSING:
        return f"{name} pays from {words.count(even.smallest_faster or 0)} tokens on: {best}{_below(even)}."
    if even.kind is Kind.EVERYWHERE:
        where = "the one token count" if len(even.verdicts) == 1 else "every token count"
        return f"{name} pays at {where} measured: {best}."
    if even.kind is Kind.NOT_MONOTONE:
        faster = words.counts(even.tokens_with(Verdict.FASTER))
        return f"{name} pays at {faster} tokens but not at every larger count: {break_even.verdicts(even)}."
    if even.kind is Kind.UNDECIDED:
        return f"{name}: undecided whether it pays; best {best} ({break_even.verdicts(even)})."
    if even.kind is Kind.NOWHERE:
        return f"{name} pays at no token count measured; best {best} ({break_even.verdicts(even)})."
    return f"{name}: no claim, {'; '.join(map(words.limit, even.why))}."


def _nothing_overlapped(model: ReportModel) -> str:
    roles = sorted({found.series.variant.role for found in model.alone})
    said = f"No verdict: {' and '.join(roles)} alone, no overlapped variant to compare with."
    if not model.off_against_off:
        return said
    same = sum(found.verdict is Verdict.SAME for found in model.off_against_off)
    return f"{said} Off against off: {same} of {len(model.off_against_off)} SAME."


def mode(variant: Variant, timers: tuple[str, ...]) -> str:
    """How a number came to be: ``launch eager, receive worst_case, timer cuda_event``."""
    return f"launch {variant.launch}, receive {variant.receive}, timer {' and '.join(timers)}"


def full_answer(section: Section, model: ReportModel) -> list[str]:
    """The answer and, where it is not the same, the break-even."""
    even = section.break_even
    return [answer(section, model), *([] if even.kind is Kind.NO_CLAIM else [break_even.sentence(even)])]


def _below(even: BreakEven) -> str:
    """``; slower up to 512; undecided at 1024``, or a list where other verdicts lie between."""
    slower, undecided = even.tokens_with(Verdict.SLOWER), even.tokens_with(Verdict.UNDECIDED)
    smallest_measured = tuple(tokens for tokens, _ in even.verdicts[: len(slower)])
    said = []
    if slower:
        where = f"up to {words.count(slower[-1])}" if slower == smallest_measured else f"at {words.counts(slower)}"
        said.append(f"slower {where}")
    if undecided:
        said.append(f"undecided at {words.counts(undecided)}")
    return "".join(f"; {part}" for part in said)


def undecided(section: Section) -> list[str]:
    """Of a series' rows."""
    return undecided_at((row.tokens, row.comparison.reasons) for row in section.rows)


def undecided_at(rows: Iterable[tuple[int, Sequence[str]]]) -> list[str]:
    """One line a set of reasons of (tokens, reasons): ``UNDECIDED at 1024: the interval ...``."""
    groups: dict[tuple[str, ...], list[int]] = {}
    measured = []
    for tokens, reasons in rows:
        measured.append(tokens)
        if reasons:
            groups.setdefault(tuple(reasons), []).append(tokens)
    return [
        f"UNDECIDED at {words.counts_of(tokens, measured)}: {'; '.join(reasons)}." for reasons, tokens in groups.items()
    ]


def caption(section: Section) -> str:
    """The mode of every number in a section's table, and what they must say of themselves."""
    variant = section.series.variant
    known = {row.comparison.estimate for row in section.rows if row.comparison.estimate is not None}
    levels = sorted({(e.passes, e.confidence) for e in known})
    passes = [f"{n} passes ({words.percent(level)} interval)" if n > 1 else "1 pass" for n, level in levels]
    said = ", ".join([mode(variant, section.timers), *([" or ".join(passes)] if passes else [])])
    return "; ".join([said, *labels(section)]) + "."


def labels(section: Section) -> list[str]:
    """What its numbers must say of themselves, with the token counts where a label is not every row's."""

    def said(label: str) -> str:
        tokens = tuple(row.tokens for row in section.rows if label in row.comparison.labels)
        return label if len(tokens) == len(section.rows) else f"{label} (at {words.counts(tokens)})"

    return list(map(said, section.labels))


def imbalance(section: Section) -> list[str]:
    """A line where ranks receive unlike shares: ``Routing zipf-1-hottest: rank 3 receives 1.8x the mean ...``."""
    known = [row.traffic for row in section.rows if row.traffic is not None and row.traffic.rank_rows]
    if not known:
        return []
    ranks = " or ".join(dict.fromkeys(str(traffic.rank) for traffic in known))
    rows = words.factors([traffic.rows_over_mean for traffic in known])
    most = words.factors([traffic.rank_imbalance for traffic in known])
    busiest = [traffic.expert_imbalance for traffic in known if traffic.expert_imbalance is not None]
    pairs = f", its busiest expert {words.factors(busiest)} the mean expert's pairs" if busiest else ""
    routing = section.series.workload.routing
    return [f"Routing {routing}: rank {ranks} receives {rows} the mean rank's rows (any rank at most {most}){pairs}."]


def rank_skew(section: Section) -> list[str]:
    """``Ranks: the fastest is 1.2 % to 3.4 % (off) and 2.5 % (on) ahead of the slowest, whose times these are.``"""
    sides = (("off", [row.off_rank_skew for row in section.rows]), ("on", [row.on_rank_skew for row in section.rows]))
    said = []
    for name, skews in sides:
        known = [skew for skew in skews if skew is not None]
        if known:
            ends = dict.fromkeys(map(words.percent, (min(known), max(known))))
            said.append(f"{' to '.join(ends)} ({name})")
    if not said:
        return []
    return [f"Ranks: the fastest is {' and '.join(said)} ahead of the slowest, whose times these are."]


def doubts(section: Section) -> list[str]:
    """Of a series' rows."""
    return doubts_at((row.tokens, row.comparison.flags) for row in section.rows)


def doubts_at(rows: Iterable[tuple[int, Sequence[str]]]) -> list[str]:
    """One line a kind of doubt of (tokens, doubts), told by the words before its colon; the figures after it are in
    the results."""
    found: dict[str, list[int]] = {}
    measured = []
    for tokens, flags in rows:
        measured.append(tokens)
        for kind in dict.fromkeys(flag.split(":")[0] for flag in flags):
            found.setdefault(kind, []).append(tokens)
    return [f"Doubt at {words.counts_of(tokens, measured)}: {kind}." for kind, tokens in found.items()]


def noise(model: ReportModel) -> list[str]:
    """The noise floor and what it lets one see; none where nothing was compared."""
    floor = model.noise
    if floor.within_sd is None and floor.between_sd is None:
        return []
    of = "medians" if model.sections else "off against off, medians"
    return [
        f"Noise floor ({of}): paired ratios {words.percent(floor.within_sd)} within a pass, "
        f"pass means {words.percent(floor.between_sd)} between passes. Minimum detectable effect: "
        f"{words.percent(floor.min_detectable)}, at worst {words.percent(floor.min_detectable_worst)}."
    ]


def off_against_off(model: ReportModel) -> list[str]:
    """``A/A, off against off: SAME at 128 and 512; 0.999x to 1.001x.``: one line a series, none where nobody asked, or
    where the tables of a run without overlapped variants tell it."""
    if model.alone:
        return []
    groups: dict[Series, list[OffAgainstOff]] = {}
    for found in model.off_against_off:
        groups.setdefault(series_of(found.workload, found.link, found.variant), []).append(found)
    return [_off_against_off(series, found, len(groups) > 1) for series, found in groups.items()]


def _off_against_off(series: Series, found: list[OffAgainstOff], named: bool) -> str:
    measured = [f.workload.tokens for f in found]
    told = [(verdict, [f.workload.tokens for f in found if f.verdict is verdict]) for verdict in Verdict]
    verdicts = ", ".join(f"{verdict} at {words.counts_of(tokens, measured)}" for verdict, tokens in told if tokens)
    speedups = [f.estimate.speedup for f in found if f.estimate is not None]
    ends = dict.fromkeys(f"{end:.3f}x" for end in (min(speedups), max(speedups))) if speedups else (words.UNKNOWN,)
    alarm = "".join(f" {line}" for line in false_alarm(found))
    why = dict.fromkeys(reason for f in found for reason in f.reasons)
    reasons = f" ({'; '.join(why)})" if why else ""
    name = f" ({words.series(series)})" if named else ""
    return f"A/A, off against off{name}: {verdicts}{reasons}; {' to '.join(ends)}.{alarm}"


def false_alarm(found: Iterable[OffAgainstOff]) -> list[str]:
    """What a difference between equal runs says of all others; none without one."""
    false = any(one.verdict in CLAIMS for one in found)
    return ["FASTER or SLOWER where nothing was changed: trust no verdict of that size in this run."] if false else []


def rule(model: Measured) -> str:
    """How verdicts were reached."""
    settings = model.measure
    return (
        f"FASTER or SLOWER: the whole interval lies beyond 1 ± {words.percent(settings.decide_beyond)}; "
        f"SAME: within 1 ± {words.percent(settings.same_within)}; else UNDECIDED. So is a FASTER or SLOWER that does "
        f"not survive a false discovery rate of {words.percent(FALSE_DISCOVERY_RATE)} over the whole table."
    )


def machine(model: Measured) -> str:
    """``NVIDIA H100 80GB HBM3, 132 SMs, torch 2.13.0``."""
    texts = []
    for found in model.machines:
        parts = [machine_name(found), *([f"{found.sm_count} SMs"] if found.sm_count else [])]
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
    return ", ".join((entry.workload.precision, words.link(entry.link), *entry.axes))


def _outcome(entry: NotTimed) -> str:
    passes = words.counts(tuple(index + 1 for index in entry.passes))
    return f"{entry.status} in pass {passes}: {' '.join((entry.reason or 'no reason given').split())}"
