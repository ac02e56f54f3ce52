"""The report's tables as rows of text, shared by terminal, Markdown and HTML: which columns, in which unit."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.deciding import facts
from bench.deciding.decompose import Bounds, Decomposition, LaneTimes
from bench.deciding.gpu_states import GpuStates
from bench.render import break_even, sentences, words, worth
from bench.report_model import ReportModel, Row, Section


@dataclass(frozen=True)
class Table:
    """Headers and rows of cells, all text."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    of_words: bool = False
    """Cells are words, not numbers."""


@dataclass(frozen=True)
class Unit:
    """One unit and one number of decimals for all times of a table."""

    name: str
    per_second: float
    decimals: int

    def text(self, seconds: float | None, *, signed: bool = False) -> str:
        if seconds is None:
            return words.UNKNOWN
        return f"{seconds * self.per_second:{'+' if signed else ''}.{self.decimals}f}"


def unit_for(seconds: Iterable[float | None]) -> Unit:
    """The unit in which the largest time reads as 1.234, 12.34 or 123.4."""
    largest = max((s for s in seconds if s is not None), default=0.0)
    name, per_second = next(
        ((name, per) for name, per in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if largest * per >= 1), ("us", 1e6)
    )
    digits_before = len(f"{largest * per_second:.0f}")
    return Unit(name, per_second, max(1, 4 - digits_before))


def section_unit(section: Section) -> Unit:
    """The unit of both of a section's tables."""
    times: list[float | None] = []
    for row in section.rows:
        times += [row.comparison.baseline_s, row.comparison.variant_s]
        times += [row.decomposition.t2s_s] if row.decomposition else []
    return unit_for(times)


def decision(section: Section) -> Table:
    """Off against on, the verdict, and why in four numbers."""
    unit = section_unit(section)

    def cells(row: Row) -> tuple[str, ...]:
        found, why = row.comparison, row.decomposition
        return (
            words.count(row.tokens),
            unit.text(found.baseline_s),
            unit.text(found.variant_s),
            words.speedup(found),
            found.verdict,
            *_explained(why, unit),
        )

    return Table(
        "TBO off against on",
        (
            "tokens",
            f"off {unit.name}",
            f"on {unit.name}",
            "speed-up",
            "verdict",
            f"penalty {unit.name}",
            f"gain {unit.name}",
            f"ideal {unit.name}",
            "efficiency",
        ),
        tuple(cells(row) for row in section.rows),
        (
            break_even.sentence(section.break_even),
            *break_even.link_sensitivity(section),
            *worth.steps(section),
            *sentences.undecided(section),
            *sentences.imbalance(section),
            *sentences.rank_skew(section),
            *sentences.doubts(section),
            sentences.caption(section),
        ),
    )


def _explained(why: Decomposition | None, unit: Unit) -> tuple[str, ...]:
    if why is None:
        return (words.UNKNOWN,) * 4
    return (
        unit.text(why.penalty_s, signed=True),
        unit.text(why.gain_s, signed=True),
        unit.text(why.bounds.ideal_s if why.bounds else None),
        words.percent(why.efficiency),
    )


Quantity = Callable[[Row, Unit], str]


def _time(pick: Callable[[Decomposition], float | None], *, signed: bool = False) -> Quantity:
    def text(row: Row, unit: Unit) -> str:
        return unit.text(pick(row.decomposition) if row.decomposition else None, signed=signed)

    return text


def _bound(pick: Callable[[Bounds], float | None]) -> Quantity:
    return _time(lambda why: pick(why.bounds) if why.bounds else None)


def _lane(lanes: Callable[[Decomposition], LaneTimes | None], pick: Callable[[LaneTimes], float]) -> Quantity:
    def time(why: Decomposition) -> float | None:
        found = lanes(why)
        return None if found is None else pick(found)

    return _time(time)


def _order(row: Row, unit: Unit) -> str:
    bounds = row.decomposition.bounds if row.decomposition else None
    return words.UNKNOWN if bounds is None else bounds.ideal_order


RESERVATION = "of it SM reservation"
QUANTITIES: tuple[tuple[str, Quantity], ...] = (
    ("T1 unsplit", _time(lambda why: why.t1_s)),
    ("T2s split, serial", _time(lambda why: why.t2s_s)),
    ("T2o split, overlapped", _time(lambda why: why.t2o_s)),
    ("split penalty T2s - T1", _time(lambda why: why.penalty_s, signed=True)),
    (RESERVATION, _time(lambda why: why.reservation_s, signed=True)),
    ("overlap gain T2s - T2o", _time(lambda why: why.gain_s, signed=True)),
    ("net gain - penalty", _time(lambda why: why.net_s, signed=True)),
    ("T1 compute", _lane(lambda why: why.t1_lanes, lambda lanes: lanes.compute_s)),
    ("T1 comm", _lane(lambda why: why.t1_lanes, lambda lanes: lanes.comm_s)),
    ("T2s compute", _lane(lambda why: why.t2s_lanes, lambda lanes: lanes.compute_s)),
    ("T2s comm", _lane(lambda why: why.t2s_lanes, lambda lanes: lanes.comm_s)),
    ("unsplit bound", _time(lambda why: why.unsplit_bound_s)),
    ("schedule bound", _bound(lambda bounds: bounds.schedule_bound_s)),
    ("ideal", _bound(lambda bounds: bounds.ideal_s)),
    ("ideal, SMs shared", _bound(lambda bounds: bounds.ideal_sm_s)),
)
"""Rows of the explanation, in seconds; one column a token count."""


def explanation(section: Section) -> Table:
    """Where the time went, one column a token count."""
    unit = section_unit(section)
    reserves = any(row.comparison.variant.reserve_sms for row in section.rows)

    def line(name: str, text: Quantity) -> tuple[str, ...]:
        return (name, *(text(row, unit) for row in section.rows))

    return Table(
        "Where the time goes",
        ("tokens", *(words.count(row.tokens) for row in section.rows)),
        (
            *(line(f"{name}, {unit.name}", text) for name, text in QUANTITIES if reserves or name != RESERVATION),
            line("order of the ideal", _order),
            line(
                "efficiency", lambda row, _: words.percent(row.decomposition.efficiency if row.decomposition else None)
            ),
            line(
                "efficiency, SMs shared",
                lambda row, _: words.percent(row.decomposition.efficiency_sm if row.decomposition else None),
            ),
            line("minimum detectable effect", lambda row, _: words.percent(row.comparison.min_detectable)),
        ),
        (*sentences.doubts(section), sentences.caption(section)),
    )


def dilation(section: Section) -> Table | None:
    """Stage times in T2o over T2s, one column a token count; None without instrumented passes."""
    known = [dict(row.decomposition.dilation) if row.decomposition else {} for row in section.rows]
    stages = dict.fromkeys(stage for row in known for stage in row)
    if not stages:
        return None
    return Table(
        "Dilation: stage time in T2o / T2s",
        ("stage", *(words.count(row.tokens) for row in section.rows)),
        tuple((stage, *(words.ratio(row.get(stage)) for row in known)) for stage in stages),
        (*sentences.doubts(section), sentences.caption(section)),
    )


def kernels(section: Section) -> Table | None:
    """What T1's stages reach at the largest token count, against the measured roofline; None without stage times."""
    row = max(section.rows, key=lambda row: row.tokens, default=None)
    if row is None or not row.stage_rates:
        return None
    unit = unit_for(rate.seconds for rate in row.stage_rates)
    return Table(
        f"Kernels: T1's stages at {words.count(row.tokens)} tokens, one layer",
        ("stage", unit.name, "TFLOP/s", "GB/s", "of roofline"),
        tuple(
            (
                rate.stage,
                unit.text(rate.seconds),
                f"{rate.flops_per_s / 1e12:.0f}" if rate.flops else "-",
                f"{rate.bytes_per_s / 1e9:.0f}",
                words.percent(rate.roofline),
            )
            for rate in row.stage_rates
        ),
        (sentences.ROOFLINE, *sentences.doubts(section), sentences.caption(section)),
    )


def memory(section: Section) -> Table | None:
    """Most activation memory of any pass, one column a token count; None where the device reports none."""
    sizes = [(row.off_activations_bytes, row.on_activations_bytes) for row in section.rows]
    if not any(off or on for off, on in sizes):
        return None
    return Table(
        "Memory: activations at their peak",
        ("tokens", *(words.count(row.tokens) for row in section.rows)),
        (
            ("off (T1)", *(words.size(off) for off, _ in sizes)),
            ("on (T2o)", *(words.size(on) for _, on in sizes)),
            ("on / off", *(words.ratio(on / off if on and off else None) for off, on in sizes)),
        ),
        (sentences.ACTIVATIONS, sentences.caption(section)),
    )


def clocks(section: Section) -> Table | None:
    """What the GPU said of itself, one column a token count; None where nobody asked."""
    states = [row.gpu for row in section.rows]
    if not any(states):
        return None

    def line(name: str, pick: Callable[[GpuStates], float | None]) -> tuple[str, ...]:
        values = (None if state is None else pick(state) for state in states)
        return (name, *(words.UNKNOWN if value is None else f"{value:.0f}" for value in values))

    reasons = dict.fromkeys(reason for state in states if state is not None for reason in state.reasons)
    return Table(
        "Clocks and power",
        ("tokens", *(words.count(row.tokens) for row in section.rows)),
        (
            line("SM clock, MHz: median", lambda gpu: gpu.sm_clock_hz.median * 1e-6 if gpu.sm_clock_hz else None),
            line("SM clock, MHz: lowest", lambda gpu: gpu.sm_clock_hz.lowest * 1e-6 if gpu.sm_clock_hz else None),
            line("power, W: median", lambda gpu: gpu.power_w.median if gpu.power_w else None),
            line("power, W: highest", lambda gpu: gpu.power_w.highest if gpu.power_w else None),
            line("temperature, °C: highest", lambda gpu: gpu.temperature_c.highest if gpu.temperature_c else None),
            ("slowed down", *(words.percent(state.slowed_down if state else None) for state in states)),
            ("moments asked", *(words.count(state.moments if state else 0) for state in states)),
        ),
        (
            sentences.CLOCKS,
            *([f"Slowed down by {', '.join(reasons)}."] if reasons else []),
            sentences.caption(section),
        ),
    )


def of(section: Section) -> list[Table]:
    """All of a section's tables, the decision first."""
    more = (dilation(section), kernels(section), memory(section), clocks(section))
    return [decision(section), explanation(section), *(table for table in more if table is not None)]


def spent(model: ReportModel) -> list[Table]:
    """What the Trials' time went to; none for a run that does not say."""
    if not model.spent:
        return []
    whole_s = sum(on.total_s for on in model.spent)
    rows = (
        (on.activity, f"{on.trials}", f"{on.median_s:.2f}", f"{on.largest_s:.2f}", f"{on.total_s:.1f}",
         words.percent(on.total_s / whole_s if whole_s else 0.0))
        for on in model.spent
    )  # fmt: skip
    headers = ("", "Trials", "median s", "largest s", "in all s", "share")
    return [Table("Where its Trials' time went", headers, tuple(rows), notes=(SPENT,))]


SPENT = (
    "start: of a process, in its first Trial. first run: of each variant, kernels are compiled there. oracle: all "
    "checks of that run. measure: samples. stages: the instrumented pass, stage times and memory. Not in it: Trials "
    "that ended their process, the probe before all, and this report."
)


def environment(model: ReportModel) -> Table:
    """Every recorded fact, nested ones as dotted keys."""
    told = tuple((name, words.fact(value)) for name, value in facts.flat(model.environment).items())
    return Table("What was recorded", ("fact", "value"), told, of_words=True)
