"""What a sweep would do on a machine: which variants run, what they need, about how long. Data only."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench import estimate
from bench.cases import Case
from bench.running.settled import skips
from bench.settings import MeasureSettings
from moe_impl import costs, support
from moe_impl.options import Machine, Variant


@dataclass(frozen=True)
class PlannedCase:
    """One case on this machine."""

    case: Case
    skipped: dict[Variant, str]
    """Variant -> why it cannot run here."""
    weight_bytes: int
    """Expert weights of all variants, those that run here if any does; attention's with its KV."""
    buffer_bytes: int
    """Activations of the variant that needs most."""
    dispatch_bytes: int
    """Expected payload of one layer's dispatch, of the copies that the link's bandwidth counts."""
    combine_bytes: int
    estimated_s: float
    """One pass, the variants that run here; 0 if none does."""
    labels: tuple[str, ...]
    """What every number of this case will say of itself."""

    @property
    def runs(self) -> tuple[Variant, ...]:
        return tuple(variant for variant in self.case.variants if variant not in self.skipped)


@dataclass(frozen=True)
class Plan:
    """A whole sweep on this machine."""

    machine: Machine
    measure: MeasureSettings
    cases: tuple[PlannedCase, ...]

    @property
    def running(self) -> tuple[PlannedCase, ...]:
        """Cases that can be answered here: an overlapped variant runs, or the case lists none and T1 does."""
        return tuple(planned for planned in self.cases if planned.runs)

    @property
    def estimated_s(self) -> float:
        """All passes."""
        return estimate.sweep_s((planned.estimated_s for planned in self.running), self.measure)

    @property
    def rates(self) -> estimate.Rates:
        """What the estimate assumes of the machine."""
        return estimate.ASSUMED[self.machine.device]


def make_plan(cases: Sequence[Case], measure: MeasureSettings, machine: Machine) -> Plan:
    """Weigh every case against the machine; nothing is run."""
    return Plan(machine, measure, tuple(_planned(case, measure, machine) for case in cases))


def _planned(case: Case, measure: MeasureSettings, machine: Machine) -> PlannedCase:
    workload, link = case.workload, case.link
    skipped = {measurement.variant: str(measurement.reason) for measurement in skips(case, machine)}
    runs = [variant for variant in case.variants if variant not in skipped]
    shown = runs or case.variants  # a case that needs another machine still says how large it is
    rates = estimate.ASSUMED[machine.device]
    timed = [*runs, *(variant for variant in runs if measure.aa and variant.role == "T1")]
    iterations_s = [estimate.iteration_s(workload, link, variant, rates) for variant in timed]
    labels = dict.fromkeys(label for variant in runs for label in support.labels(workload, link, variant, machine))
    return PlannedCase(
        case,
        skipped,
        weight_bytes=costs.weight_bytes(workload, *(variant.experts for variant in shown))
        + costs.attention_bytes(workload),
        buffer_bytes=max(costs.buffer_bytes(workload, variant) for variant in shown),
        dispatch_bytes=round(costs.transfer_bytes(workload, "dispatch", link.copies)),
        combine_bytes=round(costs.transfer_bytes(workload, "combine", link.copies)),
        estimated_s=estimate.case_s(iterations_s, measure) if runs else 0.0,
        labels=tuple(labels),
    )
