"""Links ``local`` and ``paced`` on a CPU: plain copies; ``paced`` then waits on the host clock."""

import time

from torch import Tensor

from moe_impl.options import Direction, Link, Workload
from moe_impl.rows import SentRows
from moe_impl.transport.clones import Clones


class LocalCpu(Clones):
    """See :class:`moe_impl.transport.base.Transport`."""

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        used = int(rows.num_rows)
        received_MB[:used] = sent_TB[rows.token_M[:used].long()]

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        used = int(rows.num_rows)
        returned_MH[:used] = partial_MH[:used]


class PacedCpu(LocalCpu):
    """The copies take what they take; the rest of the modelled time is waited for."""

    def __init__(self, link: Link, workload: Workload) -> None:
        self._link, self._workload = link, workload

    def _hold(self, direction: Direction, started_s: float, rows: SentRows) -> None:
        num_bytes = int(rows.counted(self._link.copies)) * self._workload.payload_row_bytes(direction)
        dtype = self._workload.payload_dtype(direction)
        deadline_s = started_s + self._link.seconds(direction, num_bytes, dtype)
        while time.perf_counter() < deadline_s:
            pass  # a link's times are below what sleep() resolves

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        started_s = time.perf_counter()
        super().dispatch(sent_TB, rows, received_MB)
        self._hold("dispatch", started_s, rows)

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        started_s = time.perf_counter()
        super().combine(partial_MH, rows, returned_MH)
        self._hold("combine", started_s, rows)
