"""Links ``local`` and ``paced`` on a GPU, through their kernels."""

import torch
from torch import Tensor

from moe_impl.kernels.move_rows import move_rows
from moe_impl.kernels.paced_link import new_state, paced_move
from moe_impl.options import Link, LinkTime
from moe_impl.rows import SentRows


class LocalCuda:
    """See :class:`moe_impl.transport.base.Transport`."""

    host_sized = False

    def dispatch(self, x_TH: Tensor, rows: SentRows, received_MH: Tensor) -> None:
        move_rows(x_TH, received_MH, rows.num_rows, rows.token_M)

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        move_rows(partial_MH, returned_MH, rows.num_rows)


class PacedCuda:
    """One link resource in device memory, shared by both directions: this rank's port."""

    host_sized = False

    def __init__(self, link: Link, device: torch.device) -> None:
        self._dispatch, self._combine = link.time("dispatch"), link.time("combine")
        self._comm_sms, self._copies = link.comm_sms, link.copies
        self._state = new_state(device)

    def dispatch(self, x_TH: Tensor, rows: SentRows, received_MH: Tensor) -> None:
        self._move(x_TH, received_MH, rows, self._dispatch, rows.token_M)

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        self._move(partial_MH, returned_MH, rows, self._combine)

    def _move(
        self, source: Tensor, target_MH: Tensor, rows: SentRows, time: LinkTime, index_M: Tensor | None = None
    ) -> None:
        counted = rows.counted(self._copies)
        paced_move(source, target_MH, rows.num_rows, self._state, time, self._comm_sms, index_M, counted)
