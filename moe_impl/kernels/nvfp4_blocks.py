"""What kernels do to an NVFP4 block in registers: quantize it, expand it. The Triton twin of ``moe_impl.nvfp4``.

Blocks are [BLOCKS, 8] words, a word being two neighbouring elements as they lie in memory: two bf16 values of 32 bits,
or two codes of 8. Rounding is done on integers, because no conversion to e4m3 exists before compute capability 8.9 and
the interpreter's truncates; expanded values are exact in bf16, so nothing is rounded on their way to it.
"""

import triton
import triton.language as tl

from moe_impl.kernels.nvfp4_grouped_gemm import e2m1_bits_to_float, e4m3_bits_to_float


@triton.jit
def floats_of(words):
    """int32 words of two bf16 values to fp32: elements 2i (low half), and 2i + 1."""
    return (words << 16).to(tl.float32, bitcast=True), (words & -65536).to(tl.float32, bitcast=True)


@triton.jit
def minifloat_bits(values, MANTISSA: tl.constexpr, BIAS: tl.constexpr):
    """Bits of a float format nearest to fp32 values from 0 to its largest, ties to even: e4m3 (3, 7), e2m1 (1, 1)."""
    DROPPED: tl.constexpr = 23 - MANTISSA
    wide = values.to(tl.int32, bitcast=True)
    rounded = (wide + ((1 << (DROPPED - 1)) - 1) + ((wide >> DROPPED) & 1)) >> DROPPED
    # Below the smallest normal number steps are even: next to 2^23 an fp32 holds nothing finer than a whole one.
    steps = (values * (1 << (BIAS - 1 + MANTISSA)) + 8388608.0).to(tl.int32, bitcast=True) & 0xFF
    return tl.where(values * (1 << (BIAS - 1)) < 1.0, steps, rounded - ((127 - BIAS) << MANTISSA))


@triton.jit
def e2m1_codes(values, factor):
    """Codes 0..15 of fp32 [BLOCKS, 8] times a block's factor. 0 stays 0 under an infinite one, whose scale is 0."""
    magnitudes = tl.where(values == 0, 0.0, tl.abs(values * factor[:, None]))
    sign = (values.to(tl.int32, bitcast=True) >> 28) & 8
    return minifloat_bits(tl.minimum(magnitudes, 6.0), 1, 1) | sign


@triton.jit
def quantize_blocks(even, odd, scale):
    """``nvfp4.quantize(..., rule="kernel")``, bit for bit where there is no NaN, of fp32 [BLOCKS, 8] each.

    Returns code bytes int32 [BLOCKS, 8] and e4m3 bits int32 [BLOCKS].
    """
    encode_scale = tl.div_rn(1.0, scale)
    amax = tl.max(tl.maximum(tl.abs(even), tl.abs(odd)), 1)
    scale_bits = minifloat_bits(tl.minimum(encode_scale * (amax * (1 / 6)), 448.0), 3, 7)
    block_scale = e4m3_bits_to_float(scale_bits, tl.float32) * 7.703719777548943e-34  # 2^-110
    factor = tl.where(amax == 0, 0.0, tl.div_rn(1.0, block_scale * tl.div_rn(1.0, encode_scale)))
    return e2m1_codes(even, factor) | (e2m1_codes(odd, factor) << 4), scale_bits


@triton.jit
def expand_blocks(codes, scale_bits):
    """e2m1 * e4m3 as words of two bf16 values, int32 [BLOCKS, 8], without the tensor scale: ``nvfp4.decode_bf16``."""
    scales = e4m3_bits_to_float(scale_bits, tl.float32)[:, None]
    even = e2m1_bits_to_float(codes, 0, tl.float32) * scales * 65536.0
    odd = e2m1_bits_to_float(codes, 4, tl.float32) * scales * 65536.0
    return ((even.to(tl.int32, bitcast=True) >> 16) & 0xFFFF) | (odd.to(tl.int32, bitcast=True) & -65536)
