"""A run's measured dispatches and combines as a link table: what one GPU needs to stand in for the real link.

The table is the one that ``link: {table: FILE}`` reads (bench.config.link_table).
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import get_args

from bench.config.link_table import HEADER
from bench.errors import BenchError
from bench.results import PERTURBED, Measurement, Status, Trial
from moe_impl.costs import expected_copies
from moe_impl.link_fit import Transfer, fit
from moe_impl.options import Direction, LinkTime, Transport
from moe_impl.payload import PayloadDtype
from moe_impl.split import as_run, token_slices

MEASURED: tuple[Transport, ...] = ("collective", "host_link")
"""Transports whose rows really travel; what ``paced`` takes was put in, and ``local`` has no link."""
_Size = tuple[Direction, PayloadDtype, int]


@dataclass(frozen=True)
class Transfers:
    """What a run says of its link."""

    transfers: tuple[Transfer, ...]
    """One per direction, dtype and size, smallest first: the median over passes, layers and variants."""
    left_out: int
    """Measurements whose instrumented pass was perturbed: events around their ops timed a host that lags, too."""
    cases: int


def transfers(trials: Iterable[Trial]) -> Transfers:
    """Dispatch and combine of the serial runs (T1 and T2s), where nothing runs beside them.

    Bytes are counted as ``paced`` counts them: all (token, rank) rows of the micro-batch, the own rank's included,
    of the run's own routing where it was recorded. Only policy ``equal`` is read: its shares need no routing.

    Raises:
        BenchError: no such measurement, or links of several kinds or group sizes.
    """
    seconds: defaultdict[_Size, list[float]] = defaultdict(list)
    links: set[tuple[str, int]] = set()
    cases: set[str] = set()
    left_out = 0
    for trial in trials:
        if trial.link.transport not in MEASURED:
            continue
        links.add((trial.link.transport, trial.workload.ep_size))
        cases.add(trial.case_id)
        for m in trial.measurements:
            if m.role == "T2o" or m.status != Status.OK or m.stages is None or m.variant.split.policy != "equal":
                continue
            if any(flag.startswith(PERTURBED) for flag in m.flags):
                left_out += 1
                continue
            for size, taken_s in _ops(trial, m):
                seconds[size].append(taken_s)
    if len(links) > 1:
        several = ", ".join(f"{transport} of {ep_size} ranks" for transport, ep_size in sorted(links))
        raise BenchError(f"a table is of one link, found {several}; choose one with --filter")
    if not seconds:
        why = f"; {left_out} perturbed stage passes were left out" if left_out else ""
        raise BenchError(f"no stage times of a measured link ({' or '.join(MEASURED)}) in this run{why}")
    sizes = sorted(seconds)
    return Transfers(tuple(Transfer(*size, median(seconds[size])) for size in sizes), left_out, len(cases))


def _ops(trial: Trial, m: Measurement) -> Iterator[tuple[_Size, float]]:
    workload = trial.workload
    rows = trial.traffic.rows if trial.traffic else workload.tokens * expected_copies(workload)
    ran = as_run(m.variant, workload.tokens)
    shares = [part.stop - part.start for part in token_slices(ran, workload.tokens, list)]
    assert m.stages is not None
    for direction in get_args(Direction):
        dtype, row_bytes = workload.payload_dtype(direction), workload.payload_row_bytes(direction)
        for ubatch, tokens in enumerate(shares):
            num_bytes = round(rows * tokens / workload.tokens) * row_bytes
            layers = [ubatches[ubatch] for ubatches in m.stages.op_s.get(direction, ())]
            if num_bytes and layers:
                yield (direction, dtype, num_bytes), median(layers)


def fitted(found: Transfers) -> list[tuple[LinkTime, float]]:
    """alpha and bandwidth of each direction and dtype, with the largest relative residual.

    Raises:
        BenchError: sizes too few, or times that do not grow.
    """
    times = []
    for (direction, dtype), group in groupby(found.transfers, key=lambda t: (t.direction, t.dtype)):
        try:
            times.append(fit(list(group)))
        except ValueError as error:
            raise BenchError(f"{direction} of {dtype} rows: {error}") from error
    return times


def table(found: Transfers) -> str:
    """CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for one in found.transfers:
        writer.writerow((one.direction, one.dtype, one.num_bytes, f"{one.seconds:.9g}"))
    return text.getvalue()
