"""When a kind of variant is given up: it failed alike in case after case, each at the price of a worker. Torch-free."""

from dataclasses import dataclass

from bench.cases import Case
from bench.identity import variant_id
from bench.results import Measurement, Status
from moe_impl import costs
from moe_impl.options import Variant

PATIENCE = 3
"""Cases in a row, without one between them in which this kind was timed."""
GIVEN_UP = f"skipped after {PATIENCE} failures of this kind"
GROWS_WITH_SIZE = frozenset({Status.OOM, Status.TIMEOUT})
"""What fails for its size says nothing of smaller cases."""

Kind = tuple[str, str, str, str]


def kind_of(case: Case, variant: Variant) -> Kind:
    """(role, engine, experts, precision): what decides which code runs; sizes and links are the cases' own."""
    return variant.role, variant.engine, variant.experts, case.workload.precision


def size_bytes(case: Case, variant: Variant) -> int:
    """What the variant keeps in memory."""
    return costs.weight_bytes(case.workload, variant.experts) + costs.buffer_bytes(case.workload, variant)


def was_given_up(measurement: Measurement) -> bool:
    """Whether it never ran because others of its kind had failed: a resumed sweep tries again."""
    return measurement.status is Status.SKIPPED and (measurement.reason or "").startswith(GIVEN_UP)


@dataclass(frozen=True)
class _Streak:
    status: Status
    phase: str
    reason: str
    cases: frozenset[str]
    smallest_bytes: int


class GivingUp:
    """Which kinds are given up, and since which failures."""

    def __init__(self) -> None:
        self._streaks: dict[Kind, _Streak] = {}
        self._over: dict[Kind, _Streak] = {}
        self._timed: set[tuple[str, str]] = set()

    def failed(self, case: Case, variant: Variant, status: Status, phase: str, reason: str) -> None:
        """One more failure; another way to fail begins a new streak."""
        kind, size = kind_of(case, variant), size_bytes(case, variant)
        before = self._streaks.get(kind)
        streak = _Streak(status, phase, reason, frozenset({case.case_id}), size)
        if before is not None and (before.status, before.phase) == (status, phase):
            cases = before.cases | streak.cases
            streak = _Streak(status, phase, reason, cases, min(size, before.smallest_bytes))
        self._streaks[kind] = streak
        if len(streak.cases) >= PATIENCE:
            self._over.setdefault(kind, streak)

    def timed(self, case: Case, variant: Variant) -> None:
        """It works here, so it is not given up here, and failures elsewhere are no streak."""
        self._timed.add((case.case_id, variant_id(variant)))
        self._streaks.pop(kind_of(case, variant), None)

    def reason(self, case: Case, variant: Variant) -> str | None:
        """Why the variant is not run, or None if it is."""
        streak = self._over.get(kind_of(case, variant))
        if streak is None or (case.case_id, variant_id(variant)) in self._timed:
            return None
        if streak.status in GROWS_WITH_SIZE and size_bytes(case, variant) < streak.smallest_bytes:
            return None
        return f"{GIVEN_UP}: {streak.status} in phase {streak.phase}, the last: {streak.reason}"
