"""A stored line to its Trial in one step, as bench.results.from_record reads it, at a fifteenth of its time.

It says yes or nothing: a line that is out of the ordinary in any way is left to ``from_record``, which finds out what
is wrong with it. So the two agree on every line that this module reads, and without msgspec it reads none.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import lru_cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter

from bench import stored_rules
from bench.identity import case_id, variant_id
from bench.results import SCHEMA_VERSION, Measurement, StageTimes, Trial
from bench.stored_rules import RANGE, RANGES, Range
from bench.strict_json import distinct_keys
from moe_impl.options import Link, Machine, Role, Variant, Workload
from moe_impl.overlap.schedule import chain
from moe_impl.stages import Stage

try:
    import msgspec
except ImportError:  # on a GPU machine without a network: its runs are small enough for from_record
    msgspec = None  # type: ignore[assignment]

NOT_STRUCTURE = b"0123456789abcdef.-+E ,"
"""What numbers, ids and moments are made of. A line without these bytes is its braces, keys and words: lines of equal
remains repeat a key in the same places, if anywhere (no two fields of a dataclass have equal remains)."""
MOST_PROVEN = 1000
MOST_SHAPES, MOST_OPS = 64, 4096
"""Of stages: shapes whose readers are kept at hand, and ops of a stage that a reader is made for."""
MOST_PIECES = 2**15
"""Texts of cases, machines and variants kept at hand: each is in a line of every pass."""

NO_TIMES: dict[str, Any] = {
    "check": None, "places": (), "rounds": (), "stages": None, "memory": None, "spread": None,
    "alone_s": None,
}  # fmt: skip
"""Fields of a Measurement that no comparison of two runs reads, and what they are without a value."""
NO_REST: dict[str, Any] = {"off_again": (), "telemetry": (), "traffic": None, "spent_s": {}}
"""The same of a Trial."""
REPEATED = ("flags", "labels", "limits")
"""Fields of a Measurement that say the same in most lines."""

T = TypeVar("T")


def _type(kind: Any, allowed: Range | None = RANGE) -> Any:
    """As msgspec reads it: numbers in their ranges (bench.stored_rules), a dataclass as a Struct."""
    if kind in (int, float):
        return kind if allowed is None else Annotated[kind, msgspec.Meta(ge=allowed[0], le=allowed[1])]
    if is_dataclass(kind):
        return _struct(kind)
    inside, origin = get_args(kind), get_origin(kind)
    if not inside or origin is Literal:
        return kind
    parts = tuple(one if one is Ellipsis else _type(one, allowed) for one in inside)
    return reduce(or_, parts) if origin is UnionType else origin[parts]


_DATACLASSES: dict[type, Any] = {}
"""Struct -> the dataclass that it stands for."""


def _struct(kind: Any) -> type:
    found = _struct_like(kind, {})
    _DATACLASSES[found] = kind
    return found


def _struct_like(kind: Any, others: Mapping[str, Any], without: Collection[str] = ()) -> type:
    """A Struct with the fields of a dataclass and no other: with others' types, or beside its own, and without some."""
    hints, own = get_type_hints(kind), [spec for spec in fields(kind) if spec.name not in without]
    types = {spec.name: others.get(spec.name) or _type(hints[spec.name], RANGES.get(spec.name, RANGE)) for spec in own}
    spelled = [(spec.name, types[spec.name], *_default(spec)) for spec in own]
    spelled += [(name, others[name]) for name in others.keys() - types.keys()]
    return msgspec.defstruct(kind.__name__, spelled, kw_only=True, forbid_unknown_fields=True)


def _default(spec: Field[Any]) -> tuple[Any, ...]:
    """None or one."""
    if spec.default_factory is not MISSING:
        return (msgspec.field(default_factory=spec.default_factory),)
    return () if spec.default is MISSING else (spec.default,)


def _line_reader(still_json: Collection[str] = ()) -> Callable[[bytes], Any]:
    """From the JSON of a stored line to its Struct, whose case, machine and variants are JSON still.

    Args:
        still_json: more such fields of a Measurement.
    """
    raw = msgspec.Raw
    of_any = {"variant": raw, **dict.fromkeys(still_json, raw)}
    measurement = _struct_like(Measurement, {**of_any, "variant_id": str, "role": Role})
    again = _struct_like(Measurement, of_any)
    of_trial = {
        "schema": int,
        "case_id": str,
        "case": raw,
        "machine": raw,
        "measurements": tuple[measurement, ...],  # type: ignore[valid-type]
        "off_again": tuple[again, ...],  # type: ignore[valid-type]
    }
    return msgspec.json.Decoder(_struct_like(Trial, of_trial, without=("workload", "link"))).decode


_read_line, _read_line_but_stages = (None, None) if msgspec is None else (_line_reader(), _line_reader(("stages",)))


@lru_cache(maxsize=MOST_SHAPES)
def _reader_of_stages(names: frozenset[Stage], layers: int, ubatches: int) -> Callable[[Any], Any]:
    """Of StageTimes that hold these stages and no other, each with so many layers of so many micro-batches: what
    stored_rules asks of them, in the time that it takes to read them.

    Raises:
        ValueError: a damaged line's numbers, too large for a type of that many.
    """
    if not 0 < layers * ubatches <= MOST_OPS:
        raise ValueError(f"{layers} layers of {ubatches} micro-batches")
    layer: Any = tuple.__class_getitem__((_type(float, RANGES["op_s"]),) * ubatches)
    table: Any = tuple.__class_getitem__((layer,) * layers)
    named = [(stage.value, table) for stage in Stage if stage in names]  # as stored: soonest found
    tables = msgspec.defstruct("Tables", named, forbid_unknown_fields=True)
    return msgspec.json.Decoder(_struct_like(StageTimes, {"op_s": tables}) | None).decode


@dataclass(frozen=True)
class _StoredCase:
    workload: Workload
    link: Link


@dataclass(frozen=True)
class _Case:
    stored: _StoredCase
    id: str
    stages: frozenset[Stage]
    """Of a layer."""


@dataclass(frozen=True)
class _Variant:
    variant: Variant
    id: str
    role: Role


def _piece_reader(kind: Any) -> Callable[[bytes], Any]:
    """From JSON to a dataclass, by pydantic: msgspec takes no union of dataclasses. Raises ValueError."""
    piece = make_dataclass("Piece", [("value", kind)])
    piece.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]  # nested ones follow
    adapter: TypeAdapter[Any] = TypeAdapter(piece)

    def read(text: bytes) -> Any:
        value = adapter.validate_json(b'{"value":%b}' % text, strict=True).value
        if wrong := stored_rules.out_of_range(value):
            raise ValueError(wrong)
        return value

    return read


_read_machine, _read_stored_case, _read_stored_variant = map(_piece_reader, (Machine, _StoredCase, Variant))


def _read_case(text: bytes) -> _Case:
    stored = _read_stored_case(text)
    return _Case(stored, case_id(stored.workload, stored.link), frozenset(chain(stored.workload)))


def _read_variant(text: bytes) -> _Variant:
    variant = _read_stored_variant(text)
    return _Variant(variant, variant_id(variant), variant.role)


def _made(kind: type[T], values: dict[str, Any]) -> T:
    """What the constructor of a dataclass makes of all its fields, in half its time: it computes nothing. Beside them
    may be lazy attributes that are known."""
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", values)
    return made


def _may_hold_structs(kind: Any, but: Collection[str]) -> frozenset[str]:
    """Fields of a dataclass."""
    hints = get_type_hints(kind)
    return frozenset(name for name, hint in hints.items() if any(map(is_dataclass, (hint, *get_args(hint))))) - set(but)


OF_MEASUREMENT = _may_hold_structs(Measurement, but={"variant"})
OF_TRIAL = _may_hold_structs(Trial, but={"workload", "link", "machine", "measurements", "off_again"})
KEPT_OF_MEASUREMENT, KEPT_OF_TRIAL = OF_MEASUREMENT - NO_TIMES.keys(), OF_TRIAL - NO_REST.keys()


def _with_dataclasses(values: dict[str, Any], names: Collection[str]) -> None:
    """Put them where Structs are, in fields of these names; Structs hold no others."""
    for name in names:
        value = values[name]
        if type(value) in _DATACLASSES:
            values[name] = _dataclass(value)
        elif type(value) is tuple and value and type(value[0]) in _DATACLASSES:
            values[name] = tuple(map(_dataclass, value))


def _dataclass(struct: Any) -> Any:
    return _made(_DATACLASSES[type(struct)], msgspec.structs.asdict(struct))


@dataclass
class QuickReader:
    """Reads the lines of one file; equal cases, machines, variants and texts of all its Trials are one object."""

    times_only: bool = False
    """Leave out what no comparison of two runs reads (``NO_TIMES``), after it was checked: most of the memory."""
    proven: set[bytes] = field(default_factory=set)
    """Remains of lines without a key that is twice in one object."""
    pieces: dict[bytes, Any] = field(default_factory=dict)
    """Text of a case, machine or variant -> what it says; no two kinds have a text in common."""
    seen: dict[Any, Any] = field(default_factory=dict)

    def read(self, line: bytes) -> Trial | None:
        """The Trial of a line of JSON, if nothing is wrong with it; None: ask ``from_record``."""
        read = _read_line_but_stages if self.times_only else _read_line
        if read is None:
            return None
        try:
            stored = msgspec.structs.asdict(read(line))
            case, machine = self._piece(stored.pop("case"), _read_case), self._piece(stored["machine"], _read_machine)
            measurements, off_again = (
                [self._measurement(m, case) for m in stored[name]] for name in ("measurements", "off_again")
            )
        except (ValueError, msgspec.MsgspecError):
            return None
        if (stored.pop("schema"), stored["case_id"]) != (SCHEMA_VERSION, case.id) or None in measurements:
            return None
        stored |= {
            "workload": case.stored.workload,
            "link": case.stored.link,
            "machine": machine,
            "measurements": tuple(measurements),
            "off_again": tuple(off_again),
        }
        trial = _made(Trial, stored)
        if not self._keys_are_distinct(line) or stored_rules.broken_but_for_ranges(trial):
            return None
        self._settle(trial)
        return trial

    def _piece(self, text: Any, read: Callable[[bytes], Any]) -> Any:
        text = bytes(text)
        found = self.pieces.get(text)
        if found is None:
            found = read(text)
            if len(self.pieces) < MOST_PIECES:
                self.pieces[text] = found
        return found

    def _measurement(self, stored: Any, case: _Case) -> Measurement | None:
        """None: its id or its role is not its variant's."""
        values = msgspec.structs.asdict(stored)
        variant = self._piece(values["variant"], _read_variant)
        if (
            values.setdefault("variant_id", variant.id) != variant.id
            or values.pop("role", variant.role) != variant.role
        ):
            return None
        values["variant"], values["variant_id"] = variant.variant, variant.id
        if self.times_only and values["stages"] is not None:
            ubatches = values["effective_split_factor"] or variant.variant.split_factor
            check = _reader_of_stages(self._one(case.stages), case.stored.workload.layers, ubatches)
            check(values["stages"])
            values["stages"] = None
        for name in REPEATED:
            if value := values[name]:
                values[name] = self._one(value)
        return _made(Measurement, values)

    def _one(self, value: T) -> T:
        """The first object that was equal to this one."""
        found: T = self.seen.setdefault(value, value)
        return found

    def _settle(self, trial: Trial) -> None:
        """Leave out, or turn to dataclasses, what the rules were asked of."""
        of_trial, of_measurement = (
            (KEPT_OF_TRIAL, KEPT_OF_MEASUREMENT) if self.times_only else (OF_TRIAL, OF_MEASUREMENT)
        )
        if self.times_only:
            vars(trial).update(NO_REST)
        _with_dataclasses(vars(trial), of_trial)
        for measurement in (*trial.measurements, *trial.off_again):
            values = vars(measurement)
            if self.times_only:
                values.update(NO_TIMES)
            _with_dataclasses(values, of_measurement)
            if (work := measurement.device_work) is not None:
                values["device_work"] = replace(work, kernels=self._one(work.kernels))

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
