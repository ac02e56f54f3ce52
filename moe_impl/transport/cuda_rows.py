"""Links ``local`` and ``paced`` on a GPU, through their kernels."""

import torch
from torch import Tensor

from moe_impl.kernels.move_rows import move_rows
from moe_impl.kernels.paced_link import new_state, paced_move
from moe_impl.options import Direction, Link, Workload
from moe_impl.rows import SentRows
from moe_impl.transport.clones import Clones


class LocalCuda(Clones):
    """See :class:`moe_impl.transport.base.Transport`."""

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        move_rows(words(sent_TB), words(received_MB), rows.num_rows, rows.token_M)

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        move_rows(partial_MH, returned_MH, rows.num_rows)


class PacedCuda(Clones):
    """One link resource in device memory, shared by both directions: this rank's port."""

    def __init__(self, link: Link, workload: Workload, device: torch.device) -> None:
        self._link, self._workload = link, workload
        self._state = new_state(device)

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        self._move("dispatch", sent_TB, received_MB, rows, rows.token_M)

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        self._move("combine", partial_MH, returned_MH, rows)

    def _move(
        self, direction: Direction, source: Tensor, target_MB: Tensor, rows: SentRows, index_M: Tensor | None = None
    ) -> None:
        workload, link = self._workload, self._link
        paced_move(
            words(source),
            words(target_MB),
            rows.num_rows,
            self._state,
            link.time(direction, workload.payload_dtype(direction)),
            link.comm_sms,
            index_M,
            rows.counted(link.copies),
            workload.payload_row_bytes(direction),
        )


def words(rows_NB: Tensor) -> Tensor:
    """Rows of bytes as rows of bf16-sized words, which is what the kernels move."""
    return rows_NB.view(torch.bfloat16) if rows_NB.dtype == torch.uint8 else rows_NB
