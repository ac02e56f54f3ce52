"""What a stored Trial must satisfy beyond the types of its fields, so that no later step stumbles. Torch-free."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

from moe_impl.options import Workload
from moe_impl.overlap.schedule import for_variant
from moe_impl.stages import Stage

if TYPE_CHECKING:
    from bench.results import Measurement, Trial


SHORTEST_S, LONGEST_S = 1e-9, 1e7
"""Of an iteration: no clock of ours tells less, and no sweep waits four months."""
LARGEST = 2**63 - 1
"""Of any number: more overflows what is computed from it."""
ANY_NUMBER = frozenset({"relative_error", "worst_row_ratio", "largest_difference"})
"""Fields of an output that may be wrong, so that its error may be endless or no number."""


def broken(trial: "Trial") -> str | None:
    """The first rule that ``trial`` breaks, as ``place: what is wrong``; None if it breaks none."""
    return next(_broken(trial), None)


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
    for index, measurement in enumerate(trial.measurements):
        for what in chain(_outcome(measurement), _samples(measurement), _stages(measurement, trial.workload)):
            yield f"measurements.{index}.{what}"
    for name in ("machine", "elapsed_s", "overhead_s", "measurements", "traffic"):
        for place, number in _numbers(getattr(trial, name), name):
            if not 0 <= number <= LARGEST:
                yield f"{place}: {number}, expected a finite number, at least 0"


def _numbers(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Every number in ``value`` and where it is, but what may be any number."""
    if is_dataclass(value):
        for spec in fields(value):
            if spec.name not in ANY_NUMBER:
                yield from _numbers(getattr(value, spec.name), f"{place}.{spec.name}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{place}.{key}")
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{place}.{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _outcome(m: "Measurement") -> Iterator[str]:
    if m.status == "ok" and m.check is not None:
        for name in ("relative_error", "worst_row_ratio"):
            if not 0 <= (found := getattr(m.check, name)) <= LARGEST:
                yield f"check.{name}: {found}, but its status is ok"
    if m.effective_split_factor is not None and m.effective_split_factor < 1:
        yield f"effective_split_factor: {m.effective_split_factor}, expected at least 1"
    if m.rank_skew is not None and not 0 <= m.rank_skew <= 1:
        yield f"rank_skew: {m.rank_skew}, expected a fraction"


def _samples(m: "Measurement") -> Iterator[str]:
    if m.status == "ok" and m.check is not None and not m.check.passed:
        yield "check.passed: false, but its status is ok"
    for place, sample in enumerate(m.samples_s):
        if not SHORTEST_S <= sample <= LONGEST_S:
            yield f"samples_s.{place}: {sample}, expected a finite number of seconds, {SHORTEST_S:g}..{LONGEST_S:g}"
    lengths = {name: len(getattr(m, name)) for name in ("samples_s", "places", "rounds")}
    if len(set(lengths.values())) > 1:
        yield f"samples_s: lengths differ: {', '.join(f'{name} {length}' for name, length in lengths.items())}"


def _stages(m: "Measurement", workload: Workload) -> Iterator[str]:
    if m.stages is None:
        return
    if not _is_time(m.stages.span_s):
        yield f"stages.span_s: {m.stages.span_s}, expected a finite number of seconds, at least 0"
    layers, ubatches = workload.layers, m.effective_split_factor or m.variant.split_factor
    for name, table in m.stages.op_s.items():
        if name not in set(Stage):
            yield f"stages.op_s.{name}: no stage, known: {', '.join(Stage)}"
        if [len(row) for row in table] != [ubatches] * layers:
            yield f"stages.op_s.{name}: not {layers} layers of {ubatches} micro-batches"
        for seconds in chain.from_iterable(table):
            if not _is_time(seconds):
                yield f"stages.op_s.{name}: {seconds}, expected a finite number of seconds, at least 0"
    needed = {op.stage.value for op in for_variant(m.variant, replace(workload, layers=1)).ops}
    if missing := sorted(needed - m.stages.op_s.keys()):
        yield f"stages.op_s: lacks {', '.join(missing)}"


def _is_time(seconds: float) -> bool:
    return 0 <= seconds <= LONGEST_S


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
