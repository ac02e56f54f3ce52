"""Explain a comparison: split penalty, overlap gain, and the bounds that say how much overlap could have given.

Where they come from: T1, T2s and T2o are medians of the timed samples. Bounds rest on the stage times of the separate
instrumented pass, which is slower; they are therefore scaled so that they sum to the timed median less its idle (the
instrumented span less its stages). T1's stages are scaled alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bench.deciding import join
from bench.deciding.compare import Comparison
from bench.results import PERTURBED, Measurement, StageTimes, Trial
from moe_impl.options import Variant, Workload
from moe_impl.overlap.makespan import makespan_s
from moe_impl.overlap.schedule import ORDERS, Schedule, for_variant
from moe_impl.stages import Lane, Stage, lane_of

GRID_PER_S = 2**40
"""Times are kept as multiples of 2^-40 s (0.9 ps): up to 4096 s such floats add and subtract without rounding."""
EFFICIENCY_NEEDS = 3.0
"""Efficiency is a ratio of differences; below this many detectable effects its denominator is noise."""


TIE = 1e-9
"""Orders closer than this (rounding) are equally good; the variant's own is then named."""


@dataclass(frozen=True)
class Bounds:
    """What the stage times of T2s allow, in seconds."""

    ideal_s: float
    """Best makespan over the named orders, compute and comm each doing one thing at a time."""
    ideal_order: str
    """The order that reaches it."""
    schedule_bound_s: float
    """The same for the variant's own order."""
    ideal_sm_s: float | None
    """``ideal_s`` with compute slowed while comm runs by N / (N - comm_sms beyond those that compute leaves free), N
    the SMs that compute has alone; None where comm occupies no SM or their number is unknown."""


@dataclass(frozen=True)
class LaneTimes:
    """Summed stage times of one serial run, in seconds."""

    compute_s: float
    comm_s: float


@dataclass(frozen=True)
class Decomposition:
    """T1 - T2o taken apart. ``net_s == gain_s - penalty_s`` exactly, since the three times lie on one binary grid."""

    t1_s: float
    """Unsplit."""
    t2s_s: float
    """Split, serial."""
    t2o_s: float
    """Split, overlapped."""
    min_detectable_s: float | None = None
    """Smallest effect on T2o that is told from none in most runs; None where unknown, and on a CPU."""
    t1_lanes: LaneTimes | None = None
    t2s_lanes: LaneTimes | None = None
    bounds: Bounds | None = None
    """None without an instrumented T2s pass."""
    reservation_s: float | None = None
    """The part of the split penalty that leaving SMs free costs: T2s less the same split on all SMs. 0 where none is
    left free, None where the case does not time that T2s."""
    dilation: tuple[tuple[str, float | None], ...] = ()
    """(stage, its median duration in T2o over that in T2s); None where the stage pass was perturbed."""
    stages_perturbed: bool = False
    """The row doubts its stage pass: what is made of that pass alone is withheld."""

    def __post_init__(self) -> None:
        for name in ("t1_s", "t2s_s", "t2o_s"):
            object.__setattr__(self, name, round(getattr(self, name) * GRID_PER_S) / GRID_PER_S)

    @property
    def penalty_s(self) -> float:
        """Split penalty: what splitting costs before anything overlaps."""
        return self.t2s_s - self.t1_s

    @property
    def gain_s(self) -> float:
        """Overlap gain: what overlapping wins back."""
        return self.t2s_s - self.t2o_s

    @property
    def net_s(self) -> float:
        """What TBO saves; negative where it costs."""
        return self.t1_s - self.t2o_s

    @property
    def unsplit_bound_s(self) -> float | None:
        """No overlap of T1's own stages could end sooner: the longer of its two lanes."""
        return None if self.t1_lanes is None else max(self.t1_lanes.compute_s, self.t1_lanes.comm_s)

    @property
    def efficiency(self) -> float | None:
        """Gain over the gain of the ideal, never clipped; None where that is too small to divide by, or doubtful."""
        return self._share_of(None if self.bounds is None else self.bounds.ideal_s)

    @property
    def efficiency_sm(self) -> float | None:
        """The same of the ideal whose communication takes SMs from compute."""
        return self._share_of(None if self.bounds is None else self.bounds.ideal_sm_s)

    def _share_of(self, ideal_s: float | None) -> float | None:
        if ideal_s is None or self.min_detectable_s is None or self.stages_perturbed:
            return None
        room_s = self.t2s_s - ideal_s
        return self.gain_s / room_s if room_s >= EFFICIENCY_NEEDS * self.min_detectable_s and room_s > 0 else None

    def relative(self, seconds: float) -> float:
        """As a multiple of T1."""
        return seconds / self.t1_s


def decompose(passes: Sequence[Trial], comparison: Comparison) -> Decomposition | None:
    """Take one comparison apart, over the passes that timed T1, T2s and T2o; None where there is no such pass.

    Args:
        passes: all Trials of the comparison's case.
        comparison: the T2o to explain.
    """
    variant = comparison.variant
    t1, t2s, t2o = (join.timed(passes, v) for v in (variant.unsplit(), variant.split_serial(), variant))
    common = sorted(t1.keys() & t2s.keys() & t2o.keys())
    if not common:
        return None
    t1_s, t2s_s, t2o_s = (median(join.samples_s(side[p] for p in common)) for side in (t1, t2s, t2o))
    machine, link = passes[0].machine, passes[0].link
    claims = machine.device != "cpu" and comparison.min_detectable is not None
    t1_ops, t2s_ops = (_scaled([side[p] for p in common], timed_s) for side, timed_s in ((t1, t1_s), (t2s, t2s_s)))
    perturbed = any(flag.startswith(PERTURBED) for flag in comparison.flags)
    rate = _compute_rate(link.comm_sms, variant.reserve_sms, machine.sm_count)
    return Decomposition(
        t1_s=t1_s,
        t2s_s=t2s_s,
        t2o_s=t2o_s,
        min_detectable_s=(comparison.min_detectable or 0.0) * t2o_s if claims else None,
        t1_lanes=None if t1_ops is None else _lanes(t1_ops),
        t2s_lanes=None if t2s_ops is None else _lanes(t2s_ops),
        bounds=None if t2s_ops is None else _bounds(_ran(variant, t2s_ops), passes[0].workload, t2s_ops, rate),
        reservation_s=_reservation_s(passes, variant, t2s),
        dilation=tuple(
            (stage, None if perturbed else ratio)
            for stage, ratio in _dilation([t2s[p] for p in common], [t2o[p] for p in common])
        ),
        stages_perturbed=perturbed,
    )


def _compute_rate(comm_sms: int, reserve_sms: int, sm_count: int) -> float | None:
    """Speed of compute while comm runs, over its speed in T2s, which has all SMs but the reserved ones."""
    if not comm_sms or not sm_count:
        return None
    return (sm_count - max(comm_sms, reserve_sms)) / (sm_count - reserve_sms)


def _reservation_s(passes: Sequence[Trial], variant: Variant, t2s: Mapping[int, Measurement]) -> float | None:
    """T2s less T2s on all SMs, over the passes that timed both."""
    if not variant.reserve_sms:
        return 0.0
    on_all = join.timed(passes, replace(variant, reserve_sms=0).split_serial())
    common = sorted(t2s.keys() & on_all.keys())
    if not common:
        return None
    return median(join.samples_s(t2s[p] for p in common)) - median(join.samples_s(on_all[p] for p in common))


OpSeconds = dict[str, list[list[float]]]
"""stage -> [layer][micro-batch] -> seconds."""


def _stage_times(measurements: Iterable[Measurement]) -> list[StageTimes]:
    return [m.stages for m in measurements if m.stages is not None]


def _flat(op_s: OpSeconds) -> list[float]:
    return [seconds for layers in op_s.values() for ubatches in layers for seconds in ubatches]


def _scaled(measurements: Sequence[Measurement], timed_s: float) -> OpSeconds | None:
    """Each op's median over passes, scaled to sum to ``timed_s`` less the idle of the instrumented pass."""
    passes = _stage_times(measurements)
    if not passes:
        return None
    medians = {
        stage: [
            [median(times.op_s[stage][layer][ubatch] for times in passes) for ubatch in range(len(ubatches))]
            for layer, ubatches in enumerate(layers)
        ]
        for stage, layers in passes[0].op_s.items()
    }
    idle_s = median(times.span_s - sum(_flat(times.op_s)) for times in passes)
    busy_s = sum(_flat(medians))
    # Host-bound runs can idle longer when instrumented than they take when timed: then nothing can be said.
    if busy_s <= 0 or timed_s <= idle_s:
        return None
    scale = (timed_s - idle_s) / busy_s
    return {stage: [[s * scale for s in ubatches] for ubatches in layers] for stage, layers in medians.items()}


def _lanes(op_s: OpSeconds) -> LaneTimes:
    def total(lane: Lane) -> float:
        return sum(_flat({stage: layers for stage, layers in op_s.items() if lane_of(Stage(stage)) == lane}))

    return LaneTimes(total("compute"), total("comm"))


def _ran(variant: Variant, op_s: OpSeconds) -> Variant:
    """The variant with as many micro-batches as were timed: it may have turned itself off."""
    return replace(variant, split_factor=len(next(iter(op_s.values()))[0]))


def _bounds(variant: Variant, workload: Workload, op_s: OpSeconds, rate: float | None) -> Bounds:
    def seconds(schedule: Schedule, compute_rate: float = 1.0) -> float:
        durations = [op_s[op.stage][op.layer][op.ubatch] for op in schedule.ops]
        return makespan_s(schedule, durations, compute_rate)

    schedules = {order: for_variant(replace(variant, order=order), workload) for order in ORDERS}
    spans = {order: seconds(schedule) for order, schedule in schedules.items()}
    best = min(spans, key=lambda order: spans[order])
    if spans[variant.order] <= spans[best] * (1 + TIE):
        best = variant.order
    return Bounds(
        ideal_s=spans[best],
        ideal_order=best,
        schedule_bound_s=spans[variant.order],
        ideal_sm_s=None if rate is None else min(seconds(schedule, rate) for schedule in schedules.values()),
    )


def _dilation(serial: Sequence[Measurement], overlapped: Sequence[Measurement]) -> tuple[tuple[str, float], ...]:
    def medians(measurements: Sequence[Measurement]) -> dict[str, float]:
        passes = _stage_times(measurements)
        stages = passes[0].op_s if passes else {}
        return {stage: median(s for times in passes for s in _flat({stage: times.op_s[stage]})) for stage in stages}

    before, after = medians(serial), medians(overlapped)
    return tuple((stage, after[stage] / before[stage]) for stage in before if stage in after and before[stage] > 0)
