"""What every wrapper here shares: how many programs to start, and how wide a row block is."""

import torch
import triton
from torch import Tensor

NO_FMA = {"enable_fp_fusion": False}
"""Multiply, round, then add, as the oracle does: "exact" means the same bits, in every release of Triton."""
INTERPRETED_SMS = 4
"""The interpreter runs programs one after the other; a few suffice to exercise the grid-stride loops."""


def sm_count(tensor: Tensor) -> int:
    """Multiprocessors of the tensor's GPU."""
    if not tensor.is_cuda:
        return INTERPRETED_SMS
    return int(torch.cuda.get_device_properties(tensor.device).multi_processor_count)


def strided_grid(items: int, tensor: Tensor, per_sm: int = 16) -> tuple[int]:
    """Programs for a grid-stride loop over at most ``items``; the true count is read on the device."""
    return (max(1, min(items, per_sm * sm_count(tensor))),)


def row_block(width: int) -> int:
    """One program holds a whole row: the next power of two."""
    return int(triton.next_power_of_2(width))


def row_warps(width: int) -> int:
    """About eight bf16 values a thread, in 16-byte accesses."""
    return max(1, min(16, row_block(width) // 256))


def check(condition: bool, message: str) -> None:
    """Raises ValueError where a wrapper's arguments do not fit."""
    if not condition:
        raise ValueError(message)
