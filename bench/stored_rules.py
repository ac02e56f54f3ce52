"""What a stored Trial must satisfy beyond the types of its fields, so that no later step stumbles. Torch-free."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from moe_impl.options import Machine, Variant, Workload
from moe_impl.overlap.schedule import for_variant
from moe_impl.stages import Stage

if TYPE_CHECKING:
    from bench.results import Measurement, Trial


SHORTEST_S, LONGEST_S = 1e-9, 1e7
"""Of an iteration: no clock of ours tells less, and no sweep waits four months."""
LARGEST = 2**63 - 1
"""Of any number: more overflows what is computed from it."""
STRICTER = frozenset({"samples_s", "stages"})
"""Fields whose numbers a rule of their own holds to less than ``LARGEST``."""
STAGES = frozenset(Stage)
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
    for index, again in enumerate(trial.off_again):
        if again.role != "T1":
            yield f"off_again.{index}.variant: a {again.role}, expected a T1"
        for what in chain(_samples(again), _stages(again, trial.workload)):
            yield f"off_again.{index}.{what}"
    for place, number in () if _sound(trial) else _numbers(trial):
        if not 0 <= number <= LARGEST:
            yield f"{place}: {number}, expected a finite number, at least 0"


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """Every number in ``value`` and where it is, but what may be any number."""
    items: Iterable[tuple[Any, Any]] = ()
    if is_dataclass(value):
        items = ((spec.name, getattr(value, spec.name)) for spec in fields(value) if spec.name not in ANY_NUMBER)
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value
    for key, item in items:
        yield from _numbers(item, f"{place}.{key}" if place else str(key))


def _sound(value: Any) -> bool:
    """Whether ``_numbers`` objects to nothing. Asked first, for a Trial holds thousands of numbers."""
    if isinstance(value, tuple | list):
        if not value or isinstance(value[0], str):
            return True
        return _all_within(value, 0, LARGEST) if isinstance(value[0], int | float) else all(map(_sound, value))
    if isinstance(value, Variant | Machine):  # the same few in every Trial
        return _sound_parts(value)
    return _parts_are_sound(value if isinstance(value, dict) else vars(value))


@lru_cache(maxsize=4096)
def _sound_parts(value: Variant | Machine) -> bool:
    return _parts_are_sound(vars(value))


def _parts_are_sound(parts: dict[str, Any]) -> bool:
    for name, part in parts.items():
        if part is None or name in ANY_NUMBER or name in STRICTER or isinstance(part, str):
            continue
        if not (0 <= part <= LARGEST if isinstance(part, int | float) else _sound(part)):
            return False
    return True


def _all_within(numbers: Sequence[float], least: float, most: float) -> bool:
    """Whether all are, none being no number: asked of lists of thousands, hence in three quick passes."""
    return not numbers or (min(numbers) >= least and max(numbers) <= most and not math.isnan(sum(numbers)))


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _outcome(m: "Measurement") -> Iterator[str]:
    if m.status == "ok" and not m.samples_s:
        yield "samples_s: none, but its status is ok"
    if m.status == "ok" and m.check is None:
        yield "check: none, but its status is ok"
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
    for place, sample in [] if _all_within(m.samples_s, SHORTEST_S, LONGEST_S) else enumerate(m.samples_s):
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
    times = list(chain.from_iterable(chain.from_iterable(m.stages.op_s.values())))
    all_are_times = _all_within(times, 0, LONGEST_S)
    layers, ubatches = workload.layers, m.effective_split_factor or m.variant.split_factor
    for name, table in m.stages.op_s.items():
        if name not in STAGES:
            yield f"stages.op_s.{name}: no stage, known: {', '.join(Stage)}"
        if [len(row) for row in table] != [ubatches] * layers:
            yield f"stages.op_s.{name}: not {layers} layers of {ubatches} micro-batches"
        for seconds in () if all_are_times else [s for row in table for s in row if not _is_time(s)]:
            yield f"stages.op_s.{name}: {seconds}, expected a finite number of seconds, at least 0"
    if missing := sorted(_needed(m.variant, replace(workload, layers=1, seed=0)) - m.stages.op_s.keys()):
        yield f"stages.op_s: lacks {', '.join(missing)}"


@lru_cache(maxsize=4096)
def _needed(variant: Variant, workload: Workload) -> frozenset[str]:
    """Stages without which a stage pass is not whole."""
    return frozenset(op.stage.value for op in for_variant(variant, workload).ops)


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
