"""A/A: each unsplit run (T1) against a second run of itself. Whatever tells them apart is this run's own doing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.deciding import join
from bench.deciding.compare import Reason, Verdict, doubts_of_passes, judged
from bench.deciding.stats import Estimate
from bench.results import FAILURES, Measurement, Status, Trial
from bench.settings import MeasureSettings
from moe_impl.options import Link, Variant, Workload


@dataclass(frozen=True)
class OffAgainstOff:
    """One T1 against itself; a speed-up above 1 means that the second run was faster."""

    workload: Workload
    link: Link
    variant: Variant
    verdict: Verdict
    """As any variant's, and of this comparison alone: SAME is expected, FASTER and SLOWER are false."""
    reasons: tuple[Reason, ...]
    """Why UNDECIDED; empty otherwise."""
    estimate: Estimate | None
    """None where no pass timed both."""
    again_s: float | None
    """Median of the second run's samples over the passes that timed both."""
    flags: tuple[str, ...]
    """Doubts about what was measured, of both."""


def off_against_off(trials: Iterable[Trial], measure: MeasureSettings) -> list[OffAgainstOff]:
    """Every T1 that was run again in some pass; none without ``measure: {aa: true}``."""
    return [
        _compare(passes, variant, measure)
        for passes in join.by_case(trials).values()
        for variant in join.variants_of(passes)
        if _again(passes, variant)
    ]


def _again(passes: Sequence[Trial], variant: Variant) -> dict[int, Measurement]:
    """pass_index -> the second run's measurement, whatever its status."""
    return {trial.pass_index: m for trial in passes for m in trial.off_again if m.variant == variant}


def _compare(passes: Sequence[Trial], variant: Variant, measure: MeasureSettings) -> OffAgainstOff:
    first, again = join.timed(passes, variant), _again(passes, variant)
    common = sorted(p for p in first if p in again and again[p].status is Status.OK)
    doubts = [Reason.CPU] if any(trial.machine.device == "cpu" for trial in passes) else []
    if any(m.status in FAILURES for m in [*join.measured(passes, variant).values(), *again.values()]):
        doubts.append(Reason.PASS_FAILED)
    doubts += doubts_of_passes(passes, len(common))
    verdict, reasons, estimate = judged(first, again, common, doubts, measure)
    both = [again[p] for p in common]
    return OffAgainstOff(
        workload=passes[0].workload,
        link=passes[0].link,
        variant=variant,
        verdict=verdict,
        reasons=reasons,
        estimate=estimate,
        again_s=median(join.samples_s(both)) if both else None,
        flags=join.distinct(m.flags for m in (*first.values(), *both)),
    )
