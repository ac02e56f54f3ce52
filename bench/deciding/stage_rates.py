"""How near each stage of T1 comes to what the GPU can: FLOP/s, bytes/s, and its share of the measured roofline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.deciding import join
from bench.results import Trial
from moe_impl.costs import layer_costs
from moe_impl.options import Variant, Workload
from moe_impl.stages import Stage, lane_of
from moe_impl.support import multiplies_codes

GEMM_STAGES = frozenset({Stage.GEMM1, Stage.GEMM2, Stage.SHARED})
"""What an fp8 workload multiplies on FP8 tensor cores, and W4A4 on FP4 ones where there are any."""


@dataclass(frozen=True)
class StageRate:
    """One compute stage of one layer."""

    stage: str
    seconds: float
    """Median over layers, of medians over passes, of the instrumented pass."""
    flops: float
    hbm_bytes: float
    """What the layer must do and move (moe_impl.costs), balanced routing; not what an implementation does."""
    roofline: float | None
    """Least time at the measured ceilings over ``seconds``; None where a ceiling was not measured, or nothing moves."""

    @property
    def flops_per_s(self) -> float:
        return self.flops / self.seconds

    @property
    def bytes_per_s(self) -> float:
        return self.hbm_bytes / self.seconds


def stage_rates(
    passes: Sequence[Trial], variant: Variant, ceilings: Mapping[str, float | None]
) -> tuple[StageRate, ...]:
    """Of an unsplit run, in the order of its stages; empty without instrumented passes.

    Args:
        passes: the case's Trials.
        ceilings: environment.json's, ``copy_bytes_per_s`` and ``{bf16,fp8}_flops_per_s``; nothing measures FP4's yet.
    """
    stages = [m.stages for m in join.timed(passes, variant).values() if m.stages is not None]
    if not stages:
        return ()
    workload = passes[0].workload
    as_codes = multiplies_codes(workload, variant, passes[0].machine)
    flops, num_bytes = _bill(workload, as_codes)
    found = []
    for stage in stages[0].op_s:
        seconds = median(median(u[0] for u in one.op_s[stage]) for one in stages if stage in one.op_s)
        if lane_of(Stage(stage)) != "compute" or stage not in num_bytes or seconds <= 0:
            continue
        kind = "bf16"
        if Stage(stage) in GEMM_STAGES:
            kind = "fp4" if as_codes else "fp8" if workload.precision == "fp8" else "bf16"
        rates = ceilings.get(f"{kind}_flops_per_s"), ceilings.get("copy_bytes_per_s")
        least_s = None if None in rates else max(flops[stage] / rates[0], num_bytes[stage] / rates[1])  # type: ignore[operator]
        share = least_s / seconds if least_s else None
        found.append(StageRate(stage, seconds, flops[stage], num_bytes[stage], share))
    return tuple(found)


def _bill(workload: Workload, as_codes: bool) -> tuple[dict[str, float], dict[str, float]]:
    """(FLOPs, bytes) of each stage of one unsplit layer."""
    flops: dict[str, float] = {}
    num_bytes: dict[str, float] = {}
    for cost in layer_costs(workload, 1, as_codes):
        flops[cost.stage.value] = flops.get(cost.stage.value, 0.0) + cost.flops
        num_bytes[cost.stage.value] = num_bytes.get(cost.stage.value, 0.0) + cost.hbm_bytes
    return flops, num_bytes
