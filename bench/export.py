"""A run as one table for other tools: a row per case, variant and pass. SI units in the names; None = unknown.

Column names and types come from the dataclasses, never from the values: tables of two runs can be put together.
"""

import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from statistics import fmean, median
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from bench.deciding import join, stats
from bench.errors import BenchError
from bench.results import Measurement, Trial
from moe_impl.options import Link, Machine, Variant, Workload
from moe_impl.shapes import ModelShape, Router
from moe_impl.stages import Stage

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
Dtype = Literal["string", "Int64", "float64", "boolean"]
DTYPES: dict[Any, Dtype] = {int: "Int64", float: "float64", bool: "boolean"}
"""Of a field, by its type; all else is text. Those of pandas, with room for None."""
TAKEN_APART = (ModelShape, Router)
"""What has columns of its own; other nested choices are one word each, as ``--filter`` spells them."""


@dataclass(frozen=True)
class Place:
    """What one row is made of."""

    trial: Trial
    measurement: Measurement

    def measured(self, pick: Callable[[Measurement], Any]) -> Any:
        """A fact of the measurement; None where what it is a part of is missing."""
        try:
            return pick(self.measurement)
        except AttributeError:
            return None


@dataclass(frozen=True)
class Column:
    name: str
    dtype: Dtype
    read: Callable[[Place], Any]


def _fields(kind: type, prefix: str, path: str) -> list[Column]:
    """One column a field of a dataclass that ``path`` finds from a Place."""
    hints = get_type_hints(kind)
    columns = []
    for spec in fields(kind):
        name, where = f"{prefix}_{spec.name}", f"{path}.{spec.name}"
        if hints[spec.name] in TAKEN_APART:
            columns += _fields(hints[spec.name], name, where)
        else:
            columns.append(Column(name, _dtype(hints[spec.name]), _plain(where)))
    return columns


def _dtype(hint: Any) -> Dtype:
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return DTYPES.get(kinds[0], "string") if len(kinds) == 1 else "string"


def _plain(path: str) -> Callable[[Place], Any]:
    read = attrgetter(path)

    def value(place: Place) -> Any:
        found = read(place)
        if isinstance(found, tuple):
            return json.dumps(found, default=asdict)
        return str(found) if is_dataclass(found) else found

    return value


def _of_samples(pick: Callable[[Sequence[float]], float]) -> Callable[[Place], float | None]:
    return lambda place: pick(place.measurement.samples_s) if place.measurement.samples_s else None


def _speedup(place: Place) -> float | None:
    """T1 over this, in this pass: what enters a comparison's interval. None for T1, and without paired samples."""
    mine = place.measurement
    off = join.timed([place.trial], mine.variant.unsplit()).get(place.trial.pass_index)
    on = join.timed([place.trial], mine.variant).get(place.trial.pass_index)
    if mine.role == "T1" or off is None or on is None:
        return None
    try:
        return stats.estimate([stats.paired_logs(off.samples_s, on.samples_s)]).speedup
    except ValueError:
        return None


def _stage_s(stage: Stage) -> Callable[[Place], float | None]:
    def total(m: Measurement) -> float | None:
        layers = m.stages.op_s.get(stage) if m.stages is not None else None
        return None if layers is None else sum(seconds for ubatches in layers for seconds in ubatches)

    return lambda place: place.measured(total)


def _joined(name: str) -> Callable[[Place], str]:
    return lambda place: "; ".join(getattr(place.measurement, name))


def _part(path: str) -> Callable[[Place], Any]:
    return lambda place: place.measured(attrgetter(path))


def _traffic(name: str) -> Callable[[Place], float | None]:
    return lambda place: None if place.trial.traffic is None else getattr(place.trial.traffic, name)


COLUMNS: tuple[Column, ...] = (
    Column("case_id", "string", lambda place: place.trial.case_id),
    Column("variant_id", "string", lambda place: place.measurement.variant_id),
    Column("pass_index", "Int64", lambda place: place.trial.pass_index),
    Column("role", "string", lambda place: place.measurement.role),
    Column("status", "string", lambda place: place.measurement.status.value),
    Column("reason", "string", lambda place: place.measurement.reason),
    Column("num_samples", "Int64", lambda place: len(place.measurement.samples_s)),
    Column("median_s", "float64", _of_samples(median)),
    Column("mean_s", "float64", _of_samples(fmean)),
    Column("min_s", "float64", _of_samples(min)),
    Column("max_s", "float64", _of_samples(max)),
    Column("speedup", "float64", _speedup),
    Column("alone_s", "float64", _part("alone_s")),
    Column("relative_error", "float64", _part("check.relative_error")),
    Column("tolerance", "float64", _part("check.tolerance")),
    Column("check_passed", "boolean", _part("check.passed")),
    Column("peak_bytes", "Int64", _part("memory.peak_bytes")),
    Column("activations_bytes", "Int64", _part("memory.activations_bytes")),
    Column("retained_bytes", "Int64", _part("memory.retained_bytes")),
    Column("instrumented_span_s", "float64", _part("stages.span_s")),
    *(Column(f"instrumented_{stage}_s", "float64", _stage_s(stage)) for stage in Stage),
    Column("largest_schedule_difference", "float64", _part("spread.largest_difference")),
    Column("effective_split_factor", "Int64", _part("effective_split_factor")),
    Column("rank_skew", "float64", _part("rank_skew")),
    Column("flags", "string", _joined("flags")),
    Column("labels", "string", _joined("labels")),
    Column("limits", "string", _joined("limits")),
    Column("received_rows", "float64", _traffic("rows")),
    Column("rank_imbalance", "float64", _traffic("rank_imbalance")),
    Column("expert_imbalance", "float64", _traffic("expert_imbalance")),
    Column("timer", "string", lambda place: place.trial.timer),
    Column("started_at", "string", lambda place: place.trial.started_at),
    Column("elapsed_s", "float64", lambda place: place.trial.elapsed_s),
    Column("overhead_s", "float64", lambda place: place.trial.overhead_s),
    *_fields(Variant, "variant", "measurement.variant"),
    *_fields(Workload, "workload", "trial.workload"),
    *_fields(Link, "link", "trial.link"),
    *_fields(Machine, "machine", "trial.machine"),
)
"""``instrumented_..``: of the separate stage pass, which is slower; summed over layers and micro-batches."""


def frame(trials: Iterable[Trial]) -> "pd.DataFrame":
    """One row a measurement, in the order of the run."""
    import pandas as pd

    places = [Place(trial, measurement) for trial in trials for measurement in trial.measurements]
    return pd.DataFrame(
        {column.name: pd.array([column.read(place) for place in places], dtype=column.dtype) for column in COLUMNS}
    )


def write(trials: Iterable[Trial], kind: Format, path: Path) -> None:
    """Write the table of these Trials, in place of any earlier file; its folder is made.

    Raises:
        BenchError: the file cannot be written; ``parquet`` without pyarrow.
    """
    if kind == "parquet":
        _need_pyarrow()
    table = frame(trials)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            table.to_parquet(path, engine="pyarrow", index=False)
        else:
            table.to_csv(path, index=False)
    except OSError as error:
        raise BenchError(f"{path}: cannot write the export: {error.strerror or error}") from error


def _need_pyarrow() -> None:
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise BenchError(
            f"--format parquet needs pyarrow ({error}): pip install 'moe-tbo-bench[export]', or --format csv"
        ) from error
