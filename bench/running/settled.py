"""Outcomes known without running anything: skips, and failures that leave a variant out of later passes. Torch-free."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.cases import Case
from bench.errors import BenchError
from bench.identity import variant_id
from bench.results import ExpertsChoice, Measurement, Status, Trial
from bench.running.giving_up import GivingUp
from moe_impl.options import Machine, Variant
from moe_impl.support import unsupported_reason

NOTHING_TO_COMPARE = "no overlapped variant of this case can run"


def skips(case: Case, machine: Machine) -> tuple[Measurement, ...]:
    """The variants of ``case`` that cannot run on ``machine``, and those that then answer nothing.

    A variant whose T1 cannot run is compared with nothing, nor is a T1 or T2s where every T2o of the case is skipped. A
    case that lists no T2o asks for T1 and T2s alone.
    """
    reasons: dict[Variant, str] = {}
    for variant in case.variants:
        reason = unsupported_reason(case.workload, case.link, variant, machine)
        if reason is None and variant.role != "T1":
            of_t1 = unsupported_reason(case.workload, case.link, variant.unsplit(), machine)
            reason = of_t1 and f"its T1 cannot run: {of_t1}"
        if reason is not None:
            reasons[variant] = reason
    overlapped = [variant for variant in case.variants if variant.role == "T2o"]
    if overlapped and all(variant in reasons for variant in overlapped):
        reasons = {variant: reasons.get(variant, NOTHING_TO_COMPARE) for variant in case.variants}
    return tuple(Measurement(variant, Status.SKIPPED, reason) for variant, reason in reasons.items())


def refuse_if_nothing_runs(cases: Sequence[Case], machine: Machine) -> None:
    """A sweep that would only skip is a mistake of its author.

    Raises:
        BenchError: no variant of any case can run, with each distinct reason once.
    """
    reasons: Counter[str] = Counter()
    for case in cases:
        skipped = skips(case, machine)
        if len(skipped) < len(case.variants):
            return
        reasons.update({str(measurement.reason) for measurement in skipped})
    raise BenchError(
        f"none of the {len(cases)} cases can run on {machine.name} ({machine.device}):",
        *(f"  in {number} of them: {reason}" for reason, number in reasons.most_common()),
    )


@dataclass(frozen=True)
class _Failure:
    status: Status
    reason: str
    pass_index: int


class Settled:
    """What is settled of each (case, variant), over all passes of a sweep."""

    def __init__(self, cases: Sequence[Case], machine: Machine) -> None:
        self._skips = {(case.case_id, m.variant_id): m for case in cases for m in skips(case, machine)}
        self._failures: dict[tuple[str, str], _Failure] = {}
        self._giving_up = GivingUp()
        self._choices: dict[str, ExpertsChoice] = {}
        self._ruled_out: dict[str, dict[str, str]] = {}

    def remember_choices(self, trials: Iterable[Trial]) -> None:
        """What ``experts: auto`` became, so that it stays so in later passes of the same case; the first one holds."""
        for trial in trials:
            if trial.experts_choice is not None:
                self._choices.setdefault(trial.case_id, trial.experts_choice)

    def choice(self, case: Case) -> ExpertsChoice | None:
        """What ``experts: auto`` became in an earlier pass."""
        return self._choices.get(case.case_id)

    def rule_out(self, case: Case, name: str, reason: str) -> None:
        """What ``experts: auto`` may not become in this case: it ended a worker that tried it."""
        self._ruled_out.setdefault(case.case_id, {})[name] = reason

    def ruled_out(self, case: Case) -> dict[str, str]:
        """Such backends, and how they did it."""
        return dict(self._ruled_out.get(case.case_id, {}))

    def fail(self, case: Case, culprit: str | None, status: Status, phase: str, reason: str, pass_index: int) -> None:
        """Settle ``culprit`` (a variant_id), or with None all variants of the case that are not settled yet."""
        known = {m.variant_id for m in self.of(case, pass_index)}
        for variant in case.variants:
            name = variant_id(variant)
            if culprit in (None, name) and name not in known:
                self._failures[case.case_id, name] = _Failure(status, reason, pass_index)
                self._giving_up.failed(case, variant, status, phase, reason)

    def finish(self, case: Case, trial: Trial) -> None:
        """Note what was timed, and on what."""
        self.remember_choices([trial])
        for measurement in trial.measurements:
            if measurement.status is Status.OK:
                self._giving_up.timed(case, measurement.variant)

    def of(self, case: Case, pass_index: int) -> tuple[Measurement, ...]:
        """The case's settled measurements as this pass records them, in the order of its variants."""
        found = []
        for variant in case.variants:
            key = (case.case_id, variant_id(variant))
            if key in self._skips:
                found.append(self._skips[key])
            elif key in self._failures:
                failure = self._failures[key]
                since = f"left out since pass {failure.pass_index + 1}: " if failure.pass_index != pass_index else ""
                found.append(Measurement(variant, failure.status, since + failure.reason))
            elif (reason := self._giving_up.reason(case, variant)) is not None:
                found.append(Measurement(variant, Status.SKIPPED, reason))
        return tuple(found)

    @property
    def failures(self) -> int:
        """How many variants failed so far, and backends that ``experts: auto`` tried."""
        return len(self._failures) + sum(map(len, self._ruled_out.values()))
