"""What travels: bytes of one row by payload dtype. Torch-free."""

from typing import Literal

from moe_impl.shapes import NVFP4_BLOCK

PayloadDtype = Literal["bf16", "fp8", "nvfp4"]

FP8_SCALE_BYTES = 4
"""One fp32 scale a row: ``torch._scaled_grouped_mm`` on Hopper scales by row (DeepEP sends one per 128 values)."""
ALIGNMENT = 16
"""Stored rows begin at multiples of it, so that kernels move them in 16-byte accesses."""


def row_bytes(dtype: PayloadDtype, width: int) -> int:
    """Bytes of a row of ``width`` values with its scales: what a link's time is made of."""
    match dtype:
        case "bf16":
            return 2 * width
        case "fp8":
            return width + FP8_SCALE_BYTES
        case "nvfp4":
            return width // 2 + width // NVFP4_BLOCK


def stored_row_bytes(dtype: PayloadDtype, width: int) -> int:
    """The same rounded up to ``ALIGNMENT``: what a buffer holds and a copy moves."""
    return -(-row_bytes(dtype, width) // ALIGNMENT) * ALIGNMENT
