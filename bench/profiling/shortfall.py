"""Why an overlapped run takes longer than its ideal, by its timeline. Torch-free.

The ideal's makespan is what the critical lane (the one that is busy longer in T2s) takes for T2s's stages, and what it
must idle all the same. T2o is what that lane was busy, its stages dilated by what ran beside them, and what it idled::

    T2o - ideal = (busy in T2o - busy in T2s) + (idle in T2o - idle in the ideal) + remainder

The left side is that of the timed passes (bench.deciding.decompose); busy and idle of T2o, and busy of T2s, are the
profile's. So the remainder is how far the two sources disagree, and no term is made to fit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.deciding.decompose import Decomposition
from bench.profiling.kept import Kept, Pair
from bench.profiling.request import Tool
from bench.timeline.analysis import Analysis
from bench.timeline.metrics import IterationMetrics
from moe_impl.options import Variant
from moe_impl.stages import Lane, Stage, lane_of

EXPLAINED = 0.05
"""Of T2o: a remainder up to it leaves the shortfall explained."""


@dataclass(frozen=True)
class Shortfall:
    """What one profile says of one overlapped variant's distance from its ideal, in seconds."""

    case_id: str
    variant: Variant
    tool: Tool
    folder: str
    """The profile's."""
    lane: Lane
    """The critical one."""
    t2o_s: float
    """Timed median."""
    ideal_s: float
    shared_sms_s: float | None
    """What the ideal gains in length where communication takes SMs from compute; None where it takes none."""
    dilation_s: float
    """The lane's busy time in T2o less that in T2s."""
    stages: tuple[tuple[str, float], ...]
    """The same of each of its stages, the largest first."""
    idle_s: float
    """What the lane idles in T2o less what it idles in the ideal."""
    order_s: float
    """What the variant's own order must idle more than the ideal's, by the model of the schedule."""
    starved_s: float
    """GPU idle before the host had launched what came next, in T2o: part of the lane's idle."""

    @property
    def gap_s(self) -> float:
        """T2o less the ideal."""
        return self.t2o_s - self.ideal_s

    @property
    def remainder_s(self) -> float:
        """What dilation and idle do not explain; negative where they explain more than there is."""
        return self.gap_s - self.dilation_s - self.idle_s

    @property
    def explained(self) -> bool:
        return abs(self.remainder_share) <= EXPLAINED

    @property
    def ideal_share(self) -> float:
        """Of T2o, as all shares are."""
        return self.ideal_s / self.t2o_s

    @property
    def gap_share(self) -> float:
        return self.gap_s / self.t2o_s

    @property
    def dilation_share(self) -> float:
        return self.dilation_s / self.t2o_s

    @property
    def stage_shares(self) -> tuple[tuple[str, float], ...]:
        """Of ``stages``, in their order."""
        return tuple((stage, seconds / self.t2o_s) for stage, seconds in self.stages)

    @property
    def idle_share(self) -> float:
        return self.idle_s / self.t2o_s

    @property
    def starved_share(self) -> float:
        return self.starved_s / self.t2o_s

    @property
    def remainder_share(self) -> float:
        return self.remainder_s / self.t2o_s


def shortfalls(
    profiles: Iterable[Kept], decompositions: Mapping[tuple[str, Variant], Decomposition | None]
) -> list[Shortfall]:
    """One for each profiled T2o whose ideal the timed passes tell.

    Args:
        profiles: that the run keeps.
        decompositions: of the run, by (case_id, T2o).
    """
    found = []
    for kept in profiles:
        for pair in kept.pairs:
            why = decompositions.get((kept.case.case_id, pair.on.variant))
            one = None if why is None else shortfall(kept, pair, why)
            found += [] if one is None else [one]
    return found


def shortfall(kept: Kept, pair: Pair, why: Decomposition) -> Shortfall | None:
    """Of one pair; None without its T2s, and where there is no ideal or its stage pass is in doubt."""
    if pair.serial is None or why.bounds is None or why.t2s_lanes is None or why.stages_perturbed:
        return None
    timed_s: dict[Lane, float] = {"compute": why.t2s_lanes.compute_s, "comm": why.t2s_lanes.comm_s}
    lane = max(timed_s, key=lambda which: timed_s[which])
    on, serial, bounds = pair.on.analysis, pair.serial.analysis, why.bounds
    busy_s = _median_s(on, lambda m: _busy_ns(m, lane))
    idle_s = _median_s(on, lambda m: m.span_ns - _busy_ns(m, lane))
    return Shortfall(
        case_id=kept.case.case_id,
        variant=pair.on.variant,
        tool=kept.tool,
        folder=kept.folder,
        lane=lane,
        t2o_s=why.t2o_s,
        ideal_s=bounds.ideal_s,
        shared_sms_s=None if bounds.ideal_sm_s is None else bounds.ideal_sm_s - bounds.ideal_s,
        dilation_s=busy_s - _median_s(serial, lambda m: _busy_ns(m, lane)),
        stages=_stages(on, serial, lane),
        idle_s=idle_s - (bounds.ideal_s - timed_s[lane]),
        order_s=bounds.schedule_bound_s - bounds.ideal_s,
        starved_s=_median_s(on, lambda m: m.starved_ns),
    )


def _busy_ns(measured: IterationMetrics, lane: Lane) -> int:
    return measured.compute_ns if lane == "compute" else measured.comm_ns


def _median_s(analysis: Analysis, pick: Callable[[IterationMetrics], int]) -> float:
    return median(map(pick, analysis.iterations)) * 1e-9


def _stages(on: Analysis, serial: Analysis, lane: Lane) -> tuple[tuple[str, float], ...]:
    known: Sequence[str] = [str(stage) for stage in Stage if lane_of(stage) == lane]
    longer = {
        stage: (on.stages_ns.get(stage, 0.0) - serial.stages_ns.get(stage, 0.0)) * 1e-9
        for stage in known
        if stage in on.stages_ns or stage in serial.stages_ns
    }
    return tuple(sorted(longer.items(), key=lambda pair: -pair[1]))
