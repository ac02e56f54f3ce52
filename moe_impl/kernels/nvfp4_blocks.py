"""What kernels do to an NVFP4 block in registers: quantize it, expand it. The Triton twin of ``moe_impl.nvfp4``.

Blocks are [BLOCKS, 8] words, a word being two neighbouring elements as they lie in memory: two bf16 values of 32 bits,
or two codes of 8. Rounding is done on integers, because no conversion to e4m3 exists before compute capability 8.9 and
the interpreter's truncates; expanded values are exact in bf16, so nothing is rounded on their way to it.
"""

import triton
import triton.language as tl


@triton.jit
def e2m1_bits_to_float(bits, shift: tl.constexpr, ARITHMETIC: tl.constexpr):
    """Four bits at ``shift`` of a byte: sign, then e2m1 in the low exponent bits of a float: the value times 2^-126.

    Code 1 becomes a subnormal, as it is one in e2m1. bf16 on a GPU, fp32 in the interpreter, which flushes bf16 ones.
    """
    if tl.bfloat16 == ARITHMETIC:
        wide = bits.to(tl.uint16)
        return (((wide << (6 - shift)) & 0x1C0) | ((wide << (12 - shift)) & 0x8000)).to(tl.bfloat16, bitcast=True)
    else:
        wide = bits.to(tl.uint32)
        return (((wide << (22 - shift)) & 0x1C00000) | ((wide << (28 - shift)) & 0x80000000)).to(
            tl.float32, bitcast=True
        )


@triton.jit
def e4m3_bits_to_float(bits, ARITHMETIC: tl.constexpr):
    """Non-negative finite e4m3 bits, likewise: the value times 2^110, so that a product is 2^-16 times too small."""
    if tl.bfloat16 == ARITHMETIC:
        small = (bits.to(tl.uint16) << 4).to(tl.bfloat16, bitcast=True)
    else:
        small = (bits.to(tl.uint32) << 20).to(tl.float32, bitcast=True)
    # 2^-120 of the value by place; 2^230 is no float, hence two exact steps.
    return (small.to(tl.float32) * 1.329227995784916e36 * 1.298074214633707e33).to(ARITHMETIC)


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
