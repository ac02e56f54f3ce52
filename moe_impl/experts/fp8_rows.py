"""FP8 activations on a CPU: how rows travel, and what the FP8 kernels do to them on a GPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moe_impl import fp8
from moe_impl import rows as plain
from moe_impl.payload import stored_row_bytes
from moe_impl.rows import Pairs


def quantize_rows(rows_NH: Tensor, count: Tensor | None = None) -> Tensor:
    """The twin of ``kernels.quantize_fp8``: uint8 [N, stored_row_bytes], undefined past the count."""
    rows, width = rows_NH.shape
    used = rows if count is None else int(count)
    codes, scales = fp8.quantize_rows(rows_NH[:used])
    payload = torch.empty(rows, stored_row_bytes("fp8", width), dtype=torch.uint8)
    payload[:used, :width] = codes.view(torch.uint8)
    payload.view(torch.float32)[:used, width // 4] = scales
    return payload


def gather_rows(payload_MB: Tensor, pairs: Pairs, width: int) -> tuple[Tensor, Tensor]:
    """The twin of ``kernels.gather_fp8``: codes float8_e4m3fn [P', width] and scales fp32 [P']."""
    payload_PB = plain.gather_pairs(payload_MB, pairs)
    codes_PH = payload_PB[:, :width].contiguous().view(torch.float8_e4m3fn)
    return codes_PH, payload_PB.view(torch.float32)[:, width // 4].contiguous()


def silu_mul(gate_up: Tensor, ends_L: Tensor) -> tuple[Tensor, Tensor]:
    """The twin of ``kernels.silu_mul_fp8``: codes float8_e4m3fn [P', I] and scales fp32 [P']."""
    used = int(ends_L[-1])
    pairs, width = gate_up.shape[0], gate_up.shape[1] // 2
    gate, up = gate_up[:used].float().chunk(2, -1)
    codes = torch.empty(pairs, width, dtype=torch.uint8)
    scale_P = torch.empty(pairs, dtype=torch.float32)
    quantized, scale_P[:used] = fp8.quantize_rows(F.silu(gate) * up)
    codes[:used] = quantized.view(torch.uint8)
    return codes.view(torch.float8_e4m3fn), scale_P
