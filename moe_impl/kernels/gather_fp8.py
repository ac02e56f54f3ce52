"""Stage ``permute`` of FP8 rows: one copy per (row, expert) pair, in expert order, codes and scales apart."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import check, row_block, row_warps, strided_grid
from moe_impl.payload import stored_row_bytes
from moe_impl.rows import Pairs


@triton.jit
def gather_fp8_kernel(
    payload, payload_scales, row_P, count, codes, scales, width, row_bytes, BLOCK: tl.constexpr, GATHER: tl.constexpr
):
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    source_stride, stride = tl.cast(row_bytes, tl.int64), tl.cast(width, tl.int64)
    num_pairs = tl.load(count)
    for pair in range(tl.program_id(0), num_pairs, tl.num_programs(0)):
        row = pair
        if GATHER:
            row = tl.load(row_P + pair)
        values = tl.load(payload + row * source_stride + columns, mask=inside)
        tl.store(codes + pair * stride + columns, values, mask=inside)
        tl.store(scales + pair, tl.load(payload_scales + (row * source_stride + width) // 4))


def gather_fp8(payload_MB: Tensor, pairs: Pairs, width: int) -> tuple[Tensor, Tensor]:
    """Each pair's row, as ``torch._scaled_grouped_mm`` reads it: the GPU twin of ``fp8_rows.gather_rows``.

    Args:
        payload_MB: uint8 [M', stored_row_bytes], as :func:`moe_impl.kernels.quantize_fp8.quantize_fp8` lays it out.
        pairs: packed; without ``row_P``, pair p is row p.
        width: H.

    Returns:
        float8_e4m3fn [P', H] and fp32 [P'], undefined past the last pair.
    """
    stored_bytes, wanted = payload_MB.shape[1], stored_row_bytes("fp8", width)
    check(stored_bytes == wanted, f"rows of {width} values take {wanted} bytes, got {stored_bytes}")
    check(pairs.expert_stride is None, "pairs must be packed, got layout per_expert")
    device = payload_MB.device
    capacity = payload_MB.shape[0] if pairs.row_P is None else pairs.row_P.shape[0]
    codes_PH = torch.empty(capacity, width, dtype=torch.uint8, device=device)
    scale_P = torch.empty(capacity, dtype=torch.float32, device=device)
    if capacity:
        gather_fp8_kernel[strided_grid(capacity, payload_MB)](
            payload_MB, payload_MB.view(torch.float32), pairs.row_P, pairs.ends_L[-1:], codes_PH, scale_P, width,
            stored_bytes, row_block(width), pairs.row_P is not None, num_warps=row_warps(width),
        )  # fmt: skip
    return codes_PH.view(torch.float8_e4m3fn), scale_P
