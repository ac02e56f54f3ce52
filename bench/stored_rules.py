"""What a stored Trial must satisfy beyond the types of its fields, so that no later step stumbles. Torch-free."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from moe_impl.options import OWN_WEIGHTS, Workload
from moe_impl.overlap.schedule import chain as stages_of_layer
from moe_impl.stages import Stage

if TYPE_CHECKING:
    from bench.results import Measurement, Trial


SHORTEST_S, LONGEST_S = 1e-9, 1e7
"""Of an iteration: no clock of ours tells less, and no sweep waits four months."""
LARGEST = 2**62
"""Of any number: more overflows what is computed from it. A float holds it exactly."""
Range = tuple[float, float]
RANGE: Range = (0, LARGEST)
"""Of every number, but for those in these fields."""
RANGES: Mapping[str, Range | None] = {
    "samples_s": (SHORTEST_S, LONGEST_S),
    "span_s": (0, LONGEST_S),
    "op_s": (0, LONGEST_S),
    "relative_error": None,
    "worst_row_ratio": None,
    "largest_difference": None,
}
"""None: of an output that may be wrong, so that its error may be endless or no number."""
NUMBERS = (int, float)
STAGES = frozenset(Stage)


def broken(trial: "Trial") -> str | None:
    """The first rule that ``trial`` breaks, as ``place: what is wrong``; None if it breaks none."""
    return next(chain(_broken(trial), _out_of_range(trial, RANGE, "")), None)


def broken_but_for_ranges(trial: "Trial") -> str | None:
    """The same of a Trial each of whose numbers is known to lie in its range."""
    return next(_broken(trial), None)


def out_of_range(value: Any) -> str | None:
    """The first number in a value that is not in its range."""
    return next(_out_of_range(value, RANGE, ""), None)


def _out_of_range(value: Any, allowed: Range | None, place: str) -> Iterator[str]:
    if isinstance(value, NUMBERS) and not isinstance(value, bool):
        if allowed is not None and not allowed[0] <= value <= allowed[1]:
            yield f"{place}: {value}, expected a finite number, {allowed[0]:g}..{allowed[1]:g}"
        return
    items: Iterable[tuple[Any, Any]] = ()
    if is_dataclass(value):
        items = ((name, getattr(value, name)) for name in _names(value.__class__))
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    for key, item in items:
        if item is not None and not isinstance(item, str):
            yield from _out_of_range(item, RANGES.get(key, allowed), f"{place}.{key}" if place else str(key))


@cache
def _names(kind: type) -> tuple[str, ...]:
    """Fields of a dataclass."""
    return tuple(spec.name for spec in fields(kind))


def _broken(trial: "Trial") -> Iterator[str]:
    if trial.pass_index < 0:
        yield f"pass_index: {trial.pass_index}, expected at least 0"
    if not trial.measurements:
        yield "measurements: none, expected at least one"
    if len(trial.variant_ids) < len(trial.measurements):
        yield "measurements: the same variant twice"
    if not _is_moment(trial.started_at):
        yield f"started_at: {trial.started_at!r}, expected a UTC time such as 2026-01-02T03:04:05Z"
    for name, least in (("memory_bytes", 1), ("ranks", 1)):
        if (found := getattr(trial.machine, name)) < least:
            yield f"machine.{name}: {found}, expected at least {least}"
    if (choice := trial.experts_choice) is not None:
        if choice.experts not in (own := OWN_WEIGHTS[trial.workload.precision]):
            yield f"experts_choice.experts: {choice.experts}, expected {' or '.join(own)}"
    elif any(m.status == "ok" and m.variant.experts == "auto" for m in trial.measurements):
        yield "experts_choice: none, but a variant with experts auto is ok"
    for index, measurement in enumerate(trial.measurements):
        for what in _outcome(measurement) + _samples(measurement) + _stages(measurement, trial.workload):
            yield f"measurements.{index}.{what}"
    for index, again in enumerate(trial.off_again):
        if again.role != "T1":
            yield f"off_again.{index}.variant: a {again.role}, expected a T1"
        for what in _samples(again) + _stages(again, trial.workload):
            yield f"off_again.{index}.{what}"


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _outcome(m: "Measurement") -> list[str]:
    wrong = []
    if m.status == "ok" and not m.samples_s:
        wrong.append("samples_s: none, but its status is ok")
    if m.status == "ok" and m.check is None:
        wrong.append("check: none, but its status is ok")
    if m.status == "ok" and m.check is not None:
        for name in ("relative_error", "worst_row_ratio"):
            if not 0 <= (found := getattr(m.check, name)) <= LARGEST:
                wrong.append(f"check.{name}: {found}, but its status is ok")
    if m.effective_split_factor is not None and m.effective_split_factor < 1:
        wrong.append(f"effective_split_factor: {m.effective_split_factor}, expected at least 1")
    if m.rank_skew is not None and not 0 <= m.rank_skew <= 1:
        wrong.append(f"rank_skew: {m.rank_skew}, expected a fraction")
    return wrong


def _samples(m: "Measurement") -> list[str]:
    wrong = []
    if m.status == "ok" and m.check is not None and not m.check.passed:
        wrong.append("check.passed: false, but its status is ok")
    if not len(m.samples_s) == len(m.places) == len(m.rounds):
        found = ", ".join(f"{name} {len(getattr(m, name))}" for name in ("samples_s", "places", "rounds"))
        wrong.append(f"samples_s: lengths differ: {found}")
    return wrong


def _stages(m: "Measurement", workload: Workload) -> list[str]:
    """Of its stage pass, which is whole: every stage of the workload's layers, in every micro-batch."""
    if m.stages is None:
        return []
    wrong = []
    tables, layers, ubatches = m.stages.op_s, workload.layers, m.effective_split_factor or m.variant.split_factor
    lengths = set(map(len, tables.values())), set(map(len, chain.from_iterable(tables.values())))
    for name, table in () if lengths == ({layers}, {ubatches}) else tables.items():
        if [len(row) for row in table] != [ubatches] * layers:
            wrong.append(f"stages.op_s.{name}: not {layers} layers of {ubatches} micro-batches")
    needed, found = frozenset(stages_of_layer(workload)), frozenset(tables)
    if needed != found:
        for name in sorted(found - STAGES):
            wrong.append(f"stages.op_s.{name}: no stage, known: {', '.join(Stage)}")
        if missing := sorted(needed - found):
            wrong.append(f"stages.op_s: lacks {', '.join(missing)}")
    return wrong


def unknown_field(stored: Any, known: Any, place: str = "") -> str | None:
    """The place of the first key in ``stored`` that ``known``, the same record as this program writes it, lacks."""
    if isinstance(stored, dict) and isinstance(known, dict):
        pairs = [(key, value, known.get(key), key in known) for key, value in stored.items()]
    elif isinstance(stored, list) and isinstance(known, list | tuple):
        pairs = [(str(i), one, other, True) for i, (one, other) in enumerate(zip(stored, known, strict=True))]
    else:
        return None
    for key, value, other, is_known in pairs:
        here = f"{place}.{key}" if place else key
        if not is_known:
            return here
        if isinstance(value, dict | list) and (found := unknown_field(value, other, here)):
            return found
    return None
