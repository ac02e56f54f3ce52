"""What supervisor and worker say to each other: a Job down, Events up, JSON lines both ways. Torch-free.

The worker gets its Job on standard input and writes events to the file descriptor named on its command line (its
standard output belongs to whatever a library prints). ``Job.progress_path`` is a file of two int64 that both map: the
worker keeps which variant it runs (its place in the case) and the position of the last op it issued there, so that a
dead or stuck worker still tells where it was, at no cost to the timing.
"""

import struct
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from bench.cases import Case
from bench.results import ExpertsChoice, Measurement
from bench.settings import MeasureSettings
from moe_impl.options import Machine

Phase = Literal["build", "self-check", "choose experts", "check", "warm-up", "measure", "stages", "cross-check"]

PROGRESS = struct.Struct("<qq")
"""(variant's index in its case, position of the op in its schedule), -1 for none."""

EXIT_AFTER_FAILURE = 17
"""The worker reported ``Failed`` and left, since a raised CUDA error can leave the device unusable."""


@dataclass(frozen=True)
class JobCase:
    """A case to run, and the variants whose outcome is settled already (skipped, or failed before)."""

    case: Case
    settled: tuple[Measurement, ...] = ()
    experts_choice: ExpertsChoice | None = None
    """What an earlier pass made of ``experts: auto``; None: this one chooses, if it is asked."""
    ruled_out: dict[str, str] = field(default_factory=dict)
    """Backends that it may not become, for they ended a worker, and how."""


@dataclass(frozen=True)
class Job:
    """One pass, or what is left of it."""

    pass_index: int
    cases: tuple[JobCase, ...]
    measure: MeasureSettings
    device: Literal["cuda", "cpu"]
    progress_path: str
    ranks: int = 1
    """Processes that run it together, one a rank."""


@dataclass(frozen=True)
class Ready:
    """The worker is up."""

    machine: Machine
    environment: dict[str, Any]
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True)
class Step:
    """Something began: ``variant_id`` None means that it concerns the case as a whole."""

    case_id: str
    phase: Phase
    variant_id: str | None = None
    detail: str = ""
    """A round, or in phase ``choose experts`` the backend that is tried."""
    kind: Literal["step"] = "step"


@dataclass(frozen=True)
class Finished:
    """A Trial is complete (``bench.results.to_record``'s form)."""

    record: dict[str, Any]
    kind: Literal["finished"] = "finished"


@dataclass(frozen=True)
class Failed:
    """A variant (or, with None, the whole case) raised; the worker exits with EXIT_AFTER_FAILURE after this."""

    case_id: str
    phase: Phase
    variant_id: str | None
    status: Literal["oom", "error"]
    reason: str
    kind: Literal["failed"] = "failed"


Event = Ready | Step | Finished | Failed

_JOB: TypeAdapter[Job] = TypeAdapter(Job)
# a wrong output's error may be NaN: it must not arrive as null
_EVENT: TypeAdapter[Event] = TypeAdapter(Event, config=ConfigDict(ser_json_inf_nan="constants"))


def dump_job(job: Job) -> bytes:
    """One line of JSON."""
    return _JOB.dump_json(job) + b"\n"


def load_job(line: bytes | str) -> Job:
    """Raises pydantic's ValidationError on anything that is no Job."""
    return _JOB.validate_json(line)


def dump_event(event: Event) -> bytes:
    """One line of JSON."""
    return _EVENT.dump_json(event) + b"\n"


def load_event(line: bytes | str) -> Event:
    """Raises pydantic's ValidationError on anything that is no Event."""
    return _EVENT.validate_json(line)
