"""Stage ``permute``: received rows, one copy per (row, expert) pair, in expert order."""

import torch
from torch import Tensor

from moe_impl.kernels.move_rows import move_rows
from moe_impl.rows import Pairs


def gather_pairs(received_MH: Tensor, pairs: Pairs) -> Tensor:
    """bf16 [M', H] to [P', H]: the GPU twin of ``rows.gather_pairs``; undefined past the last pair."""
    if pairs.row_P is None:
        return received_MH
    permuted_PH = torch.empty(
        pairs.row_P.shape[0], received_MH.shape[1], dtype=received_MH.dtype, device=received_MH.device
    )
    move_rows(received_MH, permuted_PH, pairs.ends_L[-1:], pairs.row_P)
    return permuted_PH
