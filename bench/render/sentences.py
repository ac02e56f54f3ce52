"""Sentences that every output shares: headline, answers, captions, doubts. Text from the model; decides nothing."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from bench.deciding.break_even import BreakEven, Kind
from bench.deciding.compare import Verdict
from bench.deciding.discovery import FALSE_DISCOVERY_RATE
from bench.deciding.join import Series
from bench.deciding.stats import Estimate
from bench.naming import machine_name
from bench.render import break_even, missing, words
from bench.report_model import ReportModel, Section
from bench.settings import MeasureSettings
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
            *([f"{missing.checks_passed(model)}."] if model.checks.made else []),
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
    """One line a kind of doubt of (tokens, doubts)."""
    rows = list(rows)
    measured = [tokens for tokens, _ in rows]
    found = words.by_kind_of_doubt(rows)
    return [f"Doubt at {words.counts_of(tokens, measured)}: {kind}." for kind, tokens in found.items()]


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
