"""NVFP4 activations in plain torch: how rows travel, and what W4A4's kernels do to them on a GPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_impl.experts.torch_backend import of_pairs
from moe_impl.nvfp4 import decode_bf16, quantize
from moe_impl.payload import stored_row_bytes
from moe_impl.shapes import NVFP4_BLOCK

RULE = "kernel"
"""flashinfer's order of operations, which quantizes activations at run time; weights are ModelOpt's."""


def quantize_rows(rows_NH: Tensor, scale: Tensor, count: Tensor | None = None) -> Tensor:
    """The twin of ``kernels.quantize_rows``: uint8 [N, stored_row_bytes], undefined past the count."""
    rows, width = rows_NH.shape
    used = rows if count is None else int(count)
    packed, scales = quantize(rows_NH[:used], scale, RULE)
    payload = torch.empty(rows, stored_row_bytes("nvfp4", width), dtype=torch.uint8, device=rows_NH.device)
    payload[:used, : width // 2] = packed
    payload[:used, width // 2 : width // 2 + width // NVFP4_BLOCK] = scales.view(torch.uint8)
    return payload


def expand_rows(payload_NB: Tensor, width: int) -> Tensor:
    """e2m1 * e4m3 of rows as they travel, without the tensor scale: bf16 [N, width], exact."""
    packed, scales, _ = payload_NB.split_with_sizes(
        (width // 2, width // NVFP4_BLOCK, payload_NB.shape[1] - width // 2 - width // NVFP4_BLOCK), -1
    )
    return decode_bf16(packed, scales.view(torch.float8_e4m3fn))


def silu_mul_quantize(gate_up: Tensor, ends_L: Tensor, scale: Tensor, in_scale_L: Tensor) -> Tensor:
    """The twin of ``kernels.silu_mul_quantize`` for packed pairs: bf16 [P', I], undefined past the last pair."""
    used = int(ends_L[-1])
    gate, up = (gate_up[:used].float() * of_pairs(in_scale_L, ends_L)).chunk(2, -1)
    h = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
    h[:used] = decode_bf16(*quantize(F.silu(gate) * up, scale, RULE))
    return h
