"""What quantized weights stand for, and where their scales lie in the blocked layout."""

import torch
from torch import Tensor

from moe_impl.fp8 import Fp8Tensor
from moe_impl.nvfp4 import NvFp4Tensor, dequantize


def dense(weights: Fp8Tensor | NvFp4Tensor) -> Tensor:
    """fp32 [L, N, K]."""
    if isinstance(weights, Fp8Tensor):
        return weights.codes.float() * weights.scales[..., None]
    return dequantize(weights.packed, weights.scales, weights.global_scale[:, None, None])


def unblocked(blocked: Tensor, rows: int, cols: int) -> Tensor:
    """Flat blocked scales as [..., rows, cols], each from where cuBLAS's documentation says that it lies."""
    row, col = torch.arange(rows)[:, None], torch.arange(cols)
    tile = row // 128 * -(-cols // 4) + col // 4
    return blocked[..., tile * 512 + row % 32 * 16 + row % 128 // 32 * 4 + col % 4]
