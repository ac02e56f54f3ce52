"""What kernels do to a row in registers: quantize it to FP8. The Triton twin of ``moe_impl.fp8``."""

import triton
import triton.language as tl

from moe_impl.kernels.nvfp4_blocks import minifloat_bits


@triton.jit
def quantize_row(values):
    """``fp8.quantize_rows`` of one fp32 row, bit for bit where it is finite; masked lanes must be 0.

    Returns code bytes uint8 [BLOCK] and the scale.
    """
    scale = tl.div_rn(tl.max(tl.abs(values), 0), 448.0)
    scale = tl.where(scale == 0, 1.0, scale)
    quotients = tl.div_rn(values, scale)
    codes = minifloat_bits(tl.minimum(tl.abs(quotients), 448.0), 3, 7)
    sign = (quotients.to(tl.int32, bitcast=True) >> 24) & 128
    return (codes | sign).to(tl.uint8), scale
