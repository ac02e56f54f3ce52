"""What a sweep stores: one Trial a line of results.jsonl. No torch, no arithmetic, no files (see run_folder)."""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench import stored_rules
from bench.device_work import DeviceWork
from bench.identity import case_id, variant_id
from bench.lazy import lazy
from bench.spent import Activity
from bench.telemetry import GpuState
from moe_impl.options import BackendName, Link, Machine, Role, Variant, Workload

PERTURBED = "stage pass perturbed"
"""The doubt of a measurement whose instrumented pass took longer or shorter than the timed one."""
SCHEMA_VERSION = 1
# History: 1 = first.


class Status(StrEnum):
    """How a variant ended in one pass."""

    OK = "ok"
    """Checked and timed."""
    SKIPPED = "skipped"
    """Cannot run here; the reason says why. No failure."""
    OOM = "oom"
    TIMEOUT = "timeout"
    """Exceeded ``case_limit`` while issuing work or computing."""
    HANG = "hang"
    """Exceeded ``case_limit`` without any sign of progress."""
    INCORRECT = "incorrect"
    """Failed the oracle: never timed."""
    ERROR = "error"


FAILURES = frozenset(Status) - {Status.OK, Status.SKIPPED}


@dataclass(frozen=True)
class Check:
    """Outcome of the comparison with the oracle, over all layers of one variant."""

    relative_error: float
    """Largest relative Frobenius error of a layer's output."""
    tolerance: float
    worst_row_ratio: float
    """Largest row error over the median row error."""
    row_ratio_limit: float
    same_as_unsplit: bool | None
    """Bit for bit T1's output; None where T1 did not run."""
    passed: bool


@dataclass(frozen=True)
class ScheduleSpread:
    """How far an overlapped variant's output moved over runs with random delays before its ops (bench.measure.jitter):
    of the host, or, launched as a graph, captured with them."""

    runs: int
    largest_difference: float
    """Relative Frobenius norm against the undisturbed run; 0.0 = the same bits in every run."""


@dataclass(frozen=True)
class StageTimes:
    """Medians of the instrumented pass, events around every op: slower than the timed pass, hence apart."""

    span_s: float
    """First start to last end of one iteration."""
    op_s: dict[str, list[list[float]]]
    """stage -> [layer][micro-batch] -> seconds."""


@dataclass(frozen=True)
class Memory:
    """Of the device's allocator (0 on a CPU, which has none); weights of all precisions included.

    A variant launched as a graph allocates in no iteration: it counts as what its graph keeps reserved for itself,
    which is more than its tensors need at a time by what the allocator rounds up and cannot fill.
    """

    peak_bytes: int
    """Most allocated during one iteration."""
    activations_bytes: int
    """The same without what was allocated before the iteration."""
    retained_bytes: int
    """Still allocated after it, above what was before."""


@dataclass(frozen=True)
class Measurement:
    """One variant in one pass of one case."""

    variant: Variant
    status: Status
    reason: str | None = None
    check: Check | None = None
    samples_s: tuple[float, ...] = ()
    """Seconds per iteration (all layers), in measuring order; never averaged here."""
    places: tuple[int, ...] = ()
    """Each sample's place in the interleaving of all variants."""
    rounds: tuple[int, ...] = ()
    """Each sample's round."""
    flags: tuple[str, ...] = ()
    """Doubts about these samples, in words."""
    labels: tuple[str, ...] = ()
    """What every number of this row must say of itself (moe_impl.support.labels)."""
    limits: tuple[str, ...] = ()
    """Why these times may not be used for advice; empty if they may."""
    stages: StageTimes | None = None
    memory: Memory | None = None
    spread: ScheduleSpread | None = None
    """None for serial variants."""
    effective_split_factor: int | None = None
    """Micro-batches that it ran with, where that is not ``variant.split_factor``; None = as asked."""
    device_work: DeviceWork | None = None
    """Of the last pass, on a GPU, under ``measure: {cross_check: true}``; None elsewhere, and where iterations could
    not be told apart."""
    rank_skew: float | None = None
    """Median over iterations of (slowest rank - fastest) / slowest, ``samples_s`` being the slowest; None for one."""
    alone_s: float | None = None
    """Median of a repeat in steady mode (bench.measure.repeat); None where nothing in the case was doubtful."""

    @lazy
    def variant_id(self) -> str:
        return variant_id(self.variant)

    @property
    def role(self) -> Role:
        return self.variant.role


@dataclass(frozen=True)
class Traffic:
    """What this rank received in one layer under the true routing, and how unlike experts and ranks are."""

    rows: float
    """(token, rank) rows, mean over layers."""
    busiest_expert_pairs: int
    """Most (row, expert) pairs on one local expert, over all layers."""
    expert_pairs: tuple[int, ...] = ()
    """[L] pairs of each local expert, summed over layers; empty where nobody counted."""
    expert_imbalance: float | None = None
    """Pairs of the busiest local expert over the mean, in the layer where that is largest; None where nobody counted,
    and where no pair came."""
    rank: int | None = None
    """Which rank this one is, where ranks differ: the one that a skewed routing has it play, or the process's own."""
    rank_rows: tuple[float, ...] = ()
    """[R] rows that each rank receives, mean over layers; empty where all are clones and receive the same."""
    rank_imbalance: float = 1.0
    """The largest of them over their mean."""

    @property
    def rows_over_mean(self) -> float:
        """This rank's rows over the mean rank's."""
        total = sum(self.rank_rows)
        return self.rows * len(self.rank_rows) / total if total else 1.0


@dataclass(frozen=True)
class ExpertsChoice:
    """What ``experts: auto`` stands for in all variants of a case (bench.choosing_experts)."""

    experts: BackendName
    t1_s: dict[BackendName, float] = field(default_factory=dict)
    """Median seconds of an unsplit iteration on each backend that there was to choose from; empty where there was one.
    These decided, in the pass that came first, and no verdict reads them."""
    out: dict[BackendName, str] = field(default_factory=dict)
    """Why a backend that should run here was not chosen from: it failed, or disagreed with the oracle."""


@dataclass(frozen=True)
class Trial:
    """One case in one pass, all its variants: a line of results.jsonl, so that a kill cannot tear a pair."""

    workload: Workload
    link: Link
    pass_index: int
    machine: Machine
    measurements: tuple[Measurement, ...]
    timer: str
    """Which clock ran: ``cuda_event`` or ``host``. Trials of different timers are not comparable."""
    started_at: str
    """UTC, ISO 8601."""
    elapsed_s: float
    overhead_s: float
    """Part of it that was no timing, nor its warm-up: build, check, stage pass."""
    traffic: Traffic | None = None
    off_again: tuple[Measurement, ...] = ()
    """Each timed T1 once more, under ``measure: {aa: true}``: no variant of the case, so only A/A reads it. Its check
    is that its last output is the first's, bit for bit."""
    telemetry: tuple[GpuState, ...] = ()
    """Of this rank's GPU, before the first round and after every one; empty where nobody can be asked."""
    experts_choice: ExpertsChoice | None = None
    """None where no variant that ran says ``experts: auto``."""
    spent_s: dict[Activity, float] = field(default_factory=dict)
    """All of ``elapsed_s``, and ``start``; empty in runs of before it was told."""

    @cached_property
    def case_id(self) -> str:
        return case_id(self.workload, self.link)

    @property
    def variant_ids(self) -> frozenset[str]:
        return frozenset(m.variant_id for m in self.measurements)

    @property
    def failed(self) -> bool:
        """Some variant, or a T1 run again, ended in a failure (a skip is none)."""
        return any(m.status in FAILURES for m in (*self.measurements, *self.off_again))


_TRIAL = TypeAdapter(Trial)


class UnreadableTrialError(ValueError):
    """A line that is no Trial of a schema we read; the message says what is wrong with it."""


def to_record(trial: Trial) -> dict[str, Any]:
    """The stored form: schema version and ids first."""
    body = _TRIAL.dump_python(trial, mode="json")
    for stored, measurement in zip(body["measurements"], trial.measurements, strict=True):
        stored["variant_id"] = measurement.variant_id
        stored["role"] = measurement.role
    case = {"workload": body.pop("workload"), "link": body.pop("link")}
    return {
        "schema": SCHEMA_VERSION,
        "case_id": trial.case_id,
        "pass_index": body.pop("pass_index"),
        "case": case,
        **body,
    }


def from_record(record: Any) -> Trial:
    """Read a stored Trial back, strictly.

    Raises:
        UnreadableTrialError: another schema version, a missing or mistyped field, ids that do not match the case, an
            unknown field, a rule of bench.stored_rules broken.
    """
    if not isinstance(record, dict):
        raise UnreadableTrialError(f"expected an object, found {type(record).__name__}")
    if type(record.get("schema")) is not int or record["schema"] != SCHEMA_VERSION:
        raise UnreadableTrialError(f"schema {record.get('schema')!r}, this program reads {SCHEMA_VERSION}")
    body = {key: value for key, value in record.items() if key not in ("schema", "case_id", "case")}
    stored_variants, stored_roles = [], []
    try:
        if not isinstance(record["case"], dict):
            raise TypeError(f"case is a {type(record['case']).__name__}")
        body |= record["case"]
        stored_variants = [m.get("variant_id") for m in body["measurements"]]
        stored_roles = [m.get("role") for m in body["measurements"]]
        body["measurements"] = [
            {key: value for key, value in m.items() if key not in ("variant_id", "role")} for m in body["measurements"]
        ]
        trial = _TRIAL.validate_json(json.dumps(body), strict=True)  # JSON: tuples are lists there
    except ValidationError as error:
        first = error.errors()[0]
        raise UnreadableTrialError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UnreadableTrialError(f"case or measurements: {error!r}") from error
    if record.get("case_id") != trial.case_id:
        raise UnreadableTrialError(f"case_id {record.get('case_id')!r} does not match its case ({trial.case_id})")
    if stored_variants != [m.variant_id for m in trial.measurements]:
        raise UnreadableTrialError("a variant_id does not match its variant")
    if stored_roles != [m.role for m in trial.measurements]:
        raise UnreadableTrialError("a role does not match its variant")
    if unknown := stored_rules.unknown_field(record, to_record(trial)):
        raise UnreadableTrialError(f"{unknown}: unknown field")
    if broken := stored_rules.broken(trial):
        raise UnreadableTrialError(broken)
    return trial
