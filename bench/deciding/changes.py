"""What comparing two runs finds: a change and its times for each T2o, what differs beside them, what stands alone."""

from dataclasses import dataclass
from enum import StrEnum

from bench.deciding.across import Place
from bench.deciding.compare import Comparison, Reason, Verdict
from bench.deciding.welch import Difference
from bench.results import Status
from moe_impl.options import Role


class Doubt(StrEnum):
    """Why a verdict between two runs is UNDECIDED. The list is closed."""

    CPU = Reason.CPU.value
    TURNED_OFF = "TBO turned itself off in one run"
    BASELINE_MISSING = Reason.BASELINE_MISSING.value
    BASELINE_FAILED = "T1 failed or was skipped in BASE"
    PASS_FAILED = "failed in at least one pass of BASE"
    UNPAIRED = Reason.UNPAIRED.value
    MACHINES_DIFFER = "passes of one run were on different machines or timers"
    FEW_PASSES = "fewer than two passes of a run timed both T1 and T2o"
    STRADDLES = Reason.STRADDLES.value
    TOUCHES_MARGIN = Reason.TOUCHES_MARGIN.value
    NOISE_FLOOR = "the interval reaches into the noise floor between processes"
    FALSE_DISCOVERY = Reason.FALSE_DISCOVERY.value


@dataclass(frozen=True)
class Times:
    """One role's time in both runs."""

    role: Role
    base_s: float | None
    """Median of all samples."""
    new_s: float | None
    difference: Difference | None
    """Of the log of each pass's median time: its ratio is new / base, above 1 for a slower NEW. None: not timed."""
    verdict: Verdict
    """Of NEW against BASE."""
    reasons: tuple[Doubt, ...]


@dataclass(frozen=True)
class OtherWork:
    """What the GPU was given to do, where the two runs differ: no time, so no noise."""

    role: Role
    base_launches: int
    new_launches: int
    """Kernels, copies and sets an iteration."""
    new_kernels: tuple[str, ...]
    gone_kernels: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """One T2o of NEW against its counterpart in BASE, each as a speed-up over its own T1."""

    base: Comparison
    new: Comparison
    difference: Difference | None
    """Of the log speed-ups: its ratio is above 1 where TBO gains more in NEW. None: a side has no speed-up."""
    verdict: Verdict
    """FASTER: TBO's speed-up grew."""
    reasons: tuple[Doubt, ...]
    times: tuple[Times, Times]
    """T1's and T2o's."""
    other_work: tuple[OtherWork, ...] = ()
    """Of T1 and T2o, where it was recorded in both runs and differs."""

    @property
    def tokens(self) -> int:
        return self.new.workload.tokens


@dataclass(frozen=True)
class NotCompared:
    """A row of BASE for which NEW has no whole answer."""

    place: Place
    """In BASE."""
    value: str | None = None
    """Of the axis compared across, at which NEW lacks it."""
    role: Role | None = None
    """Which of NEW's runs gave no time; None: NEW does not hold the row, or what it holds is another thing."""
    status: Status | None = None
    reason: str | None = None
    """Of ``status``, or what is another thing."""
    passes: tuple[int, ...] = ()
    """Of NEW, in which it ended so."""


@dataclass(frozen=True)
class Between:
    """All of BASE against all of NEW."""

    changes: tuple[Change, ...]
    not_compared: tuple[NotCompared, ...]
    """Rows of BASE."""
    only_in_new: tuple[Place, ...]
    turned_off: tuple[Place, ...]
    """Where TBO turned itself off in both runs: off against off says nothing of TBO."""


@dataclass(frozen=True)
class Alone:
    """Rows of both runs, or of a share of their cases, each judged for itself."""

    base_rows: tuple[Comparison, ...]
    """Each T2o of BASE against its own T1, in any order."""
    new_rows: tuple[Comparison, ...]
    changes: tuple[Change, ...]
    """Of these rows."""
    not_compared: tuple[NotCompared, ...]
    only_in_new: tuple[Place, ...]
    turned_off: tuple[Place, ...]
