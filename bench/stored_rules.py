"""What a stored Trial must satisfy beyond the types of its fields, so that no later step stumbles. Torch-free."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from moe_impl.options import Workload
from moe_impl.overlap.schedule import for_variant
from moe_impl.stages import Stage

if TYPE_CHECKING:
    from bench.results import Measurement, Trial


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
    for index, measurement in enumerate(trial.measurements):
        for what in chain(_samples(measurement), _stages(measurement, trial.workload)):
            yield f"measurements.{index}.{what}"


def _samples(m: "Measurement") -> Iterator[str]:
    if m.status == "ok" and m.check is not None and not m.check.passed:
        yield "check.passed: false, but its status is ok"
    for place, sample in enumerate(m.samples_s):
        if not (math.isfinite(sample) and sample > 0):
            yield f"samples_s.{place}: {sample}, expected a finite number of seconds above 0"
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
    return math.isfinite(seconds) and seconds >= 0


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
