"""A stored line to its Trial in one step, as bench.results.from_record reads it, at a tenth of its time.

It says yes or nothing: a line that is out of the ordinary in any way is left to ``from_record``, which finds out what
is wrong with it. So the two agree on every line that this module reads.
"""

import json
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench import stored_rules
from bench.identity import case_id, variant_id
from bench.results import SCHEMA_VERSION, Measurement, Trial
from bench.strict_json import distinct_keys
from moe_impl.options import Link, Workload

NOT_STRUCTURE = b"0123456789abcdef.-+E ,"
"""What numbers, ids and moments are made of. A line without these bytes is its braces, keys and words: lines of equal
remains repeat a key in the same places, if anywhere (no two fields of a dataclass have equal remains)."""
MOST_PROVEN = 1000

_CASE = make_dataclass("_CASE", [("workload", Workload), ("link", Link)], frozen=True)
_MEASUREMENT = make_dataclass(
    "_MEASUREMENT", [("variant_id", str), ("role", str)], bases=(Measurement,), frozen=True, kw_only=True
)
_STORED = make_dataclass(
    "_STORED",
    [
        ("schema", int),
        ("case_id", str),
        ("case", _CASE),
        ("measurements", tuple[_MEASUREMENT, ...]),  # type: ignore[valid-type]
        *(
            (spec.name, spec.type, spec)
            for spec in fields(Trial)
            if spec.name not in ("workload", "link", "measurements")
        ),
    ],
    frozen=True,
    kw_only=True,
)
"""The stored form, key by key, made from Trial's own fields."""
_STORED.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]  # nested ones follow
_ADAPTER: TypeAdapter[Any] = TypeAdapter(_STORED)

T = TypeVar("T")


NO_TIMES: dict[str, Any] = {
    "check": None, "places": (), "rounds": (), "stages": None, "memory": None, "spread": None,
    "alone_s": None,
}  # fmt: skip
"""Fields of a Measurement, and what they are without a value."""


def without_rest(trial: Trial) -> Trial:
    """The Trial with the times of its measurements, how they ended and what they say of themselves."""
    bare = tuple(replace(m, **NO_TIMES) for m in trial.measurements)
    return replace(trial, measurements=bare, off_again=(), telemetry=())


@dataclass
class QuickReader:
    """Reads the lines of one file; equal variants, machines and texts of all its Trials are one object."""

    times_only: bool = False
    """Leave out what no comparison of two runs reads (``NO_TIMES``), after it was checked: most of the memory."""
    proven: set[bytes] = field(default_factory=set)
    """Remains of lines without a key that is twice in one object."""
    seen: dict[Any, Any] = field(default_factory=dict)

    def read(self, line: bytes) -> Trial | None:
        """The Trial of a line of JSON, if nothing is wrong with it; None: ask ``from_record``."""
        try:
            stored = _ADAPTER.validate_json(line, strict=True)
        except ValidationError:
            return None
        if stored.schema != SCHEMA_VERSION or not self._keys_are_distinct(line):
            return None
        measurements = []
        for m in stored.measurements:
            values = vars(m).copy()
            if values.pop("variant_id") != variant_id(m.variant) or values.pop("role") != m.variant.role:
                return None
            values |= {name: self._one(values[name]) for name in ("variant", "flags", "labels", "limits")}
            if (work := values["device_work"]) is not None:
                values["device_work"] = replace(work, kernels=self._one(work.kernels))
            measurements.append(Measurement(**values))
        values = vars(stored).copy()
        del values["schema"], values["case"]
        workload, link = stored.case.workload, stored.case.link
        if values.pop("case_id") != case_id(workload, link):
            return None
        values |= {"measurements": tuple(measurements), "machine": self._one(stored.machine)}
        trial = Trial(workload=workload, link=link, **values)
        if stored_rules.broken(trial):
            return None
        return without_rest(trial) if self.times_only else trial

    def _one(self, value: T) -> T:
        """The first object that was equal to this one."""
        found: T = self.seen.setdefault(value, value)
        return found

    def _keys_are_distinct(self, line: bytes) -> bool:
        remains = line.translate(None, NOT_STRUCTURE)
        if remains not in self.proven:
            try:
                json.loads(line, object_pairs_hook=distinct_keys)
            except (ValueError, RecursionError):
                return False
            if len(self.proven) < MOST_PROVEN:
                self.proven.add(remains)
        return True
