"""The medians of many runs in one go: bit for bit what each finds for itself (Runs, Sides), sooner.

By numpy, but for logarithms: its own may differ from ``math.log``'s in the last bit.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from bench.deciding.join import Runs
from bench.deciding.sides import Sides
from bench.deciding.stats import BLOCK_SAMPLES, Estimate
from bench.lazy import tell

Array = np.ndarray[Any, np.dtype[np.float64]]
Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


def tell_medians(rows: Sequence[Sides]) -> None:
    """Give ``median_s`` and ``pass_logs`` to T1 and T2o of each row, and the row its ``estimate``.

    What does not hold equally many samples in every pass, or not in the same passes on both sides, gets nothing and
    finds its own.
    """
    samples: dict[Runs, Array] = {}
    distinct = dict.fromkeys(chain.from_iterable((row.off, row.on) for row in rows))
    for (num_passes, num), some in _grouped((_shape(runs), runs) for runs in distinct).items():
        times = (m.samples_s for runs in some for m in runs.timed.values())
        table = _array(chain.from_iterable(times), (len(some), num_passes, num))
        medians, logs = _medians(table.reshape(len(some), -1)).tolist(), _logs(_medians(table)).tolist()
        for runs, own, median_s, pass_logs in zip(some, table, medians, logs, strict=True):
            samples[runs] = own
            tell(runs, median_s=median_s, pass_logs=tuple(pass_logs))
    for alike in _grouped((_paired_shape(row, samples), row) for row in rows).values():
        off, on = (np.stack([samples[one] for one in of]) for of in ([r.off for r in alike], [r.on for r in alike]))
        logs = _medians(_logs(_block_sums(off) / _block_sums(on))).tolist()
        for row, pass_logs in zip(alike, logs, strict=True):
            tell(row, estimate=Estimate(tuple(pass_logs), None))


def _shape(runs: Runs) -> tuple[int, int] | None:
    """(passes, samples of each); None where those differ, or there are none."""
    lengths = {len(m.samples_s) for m in runs.timed.values()}
    return (len(runs.timed), lengths.pop()) if len(lengths) == 1 else None


def _paired_shape(row: Sides, samples: Mapping[Runs, Array]) -> tuple[int, ...] | None:
    """Of both sides' samples; None where they do not pair."""
    if row.off not in samples or row.on not in samples or row.off.timed.keys() != row.on.timed.keys():
        return None
    shape, other = samples[row.off].shape, samples[row.on].shape
    return shape if shape == other and not shape[-1] % BLOCK_SAMPLES else None


def _grouped(items: Iterable[tuple[Key | None, Item]]) -> dict[Key, list[Item]]:
    """Those with a key."""
    found: dict[Key, list[Item]] = {}
    for key, item in items:
        if key is not None:
            found.setdefault(key, []).append(item)
    return found


def _array(values: Iterable[float], shape: tuple[int, ...]) -> Array:
    return np.fromiter(values, np.float64, math.prod(shape)).reshape(shape)


def _logs(values: Array) -> Array:
    return _array(map(math.log, values.ravel().tolist()), values.shape)


def _medians(values: Array) -> Array:
    """Along the last axis, as statistics.median."""
    ordered, num = np.sort(values, axis=-1), values.shape[-1]
    if num % 2:
        return ordered[..., num // 2]
    return (ordered[..., num // 2 - 1] + ordered[..., num // 2]) / 2


def _block_sums(samples: Array) -> Array:
    return samples[..., ::BLOCK_SAMPLES] + samples[..., 1::BLOCK_SAMPLES]
