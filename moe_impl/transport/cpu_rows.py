"""Links ``local`` and ``paced`` on a CPU: plain copies; ``paced`` then waits on the host clock."""

import time

from torch import Tensor

from moe_impl.options import Direction, Link
from moe_impl.rows import SentRows


class LocalCpu:
    """See :class:`moe_impl.transport.base.Transport`."""

    host_sized = False

    def dispatch(self, x_TH: Tensor, rows: SentRows, received_MH: Tensor) -> None:
        used = int(rows.num_rows)
        received_MH[:used] = x_TH[rows.token_M[:used].long()]

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        used = int(rows.num_rows)
        returned_MH[:used] = partial_MH[:used]


class PacedCpu(LocalCpu):
    """The copies take what they take; the rest of the modelled time is waited for."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def _hold(self, direction: Direction, started_s: float, rows: SentRows, target_MH: Tensor) -> None:
        row_bytes = target_MH.shape[1] * target_MH.element_size()
        counted = int(rows.counted(self._link.copies))
        deadline_s = started_s + self._link.seconds(direction, counted * row_bytes)
        while time.perf_counter() < deadline_s:
            pass  # a link's times are below what sleep() resolves

    def dispatch(self, x_TH: Tensor, rows: SentRows, received_MH: Tensor) -> None:
        started_s = time.perf_counter()
        super().dispatch(x_TH, rows, received_MH)
        self._hold("dispatch", started_s, rows, received_MH)

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        started_s = time.perf_counter()
        super().combine(partial_MH, rows, returned_MH)
        self._hold("combine", started_s, rows, returned_MH)
