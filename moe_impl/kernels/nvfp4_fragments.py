"""NVFP4 weights as a tensor core's A fragments: repacked once, expanded to bf16 in registers with nothing moved.

In a 16x16 tile of the A operand (rows r, columns k) lane 4r + t of a warp holds, as four registers of two bf16 values,
rows r and r + 8 at columns 2t, 2t + 1, 2t + 8, 2t + 9: mma.m16n8k16 and wgmma.m64nNk16 alike (PTX ISA, "Matrix
fragments"). One word of 32 bits holds these 8 codes, a lane's four words of 64 columns are neighbours: a load of 16
bytes a lane is coalesced and is the operand but for the expansion.

Bits of a code in a word (+ 16: the odd column), so that most registers are one shift and one mask away:

====================  ========  =========
register              sign      magnitude
====================  ========  =========
0: row r, column 2t   15        8..6
1: row r + 8          12        5..3
2: column 2t + 8      13        2..0
3: both               14        11..9
====================  ========  =========
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import check
from moe_impl.nvfp4 import NvFp4Tensor, unpack

UNIT = 64
"""Rows and columns of a unit, whose words are neighbours."""
ROW_PADDING: tl.constexpr = tl.constexpr(128)
"""Rows are padded to a multiple, so that no tile's load of weights needs a mask."""
MAGNITUDE_AT = (6, 3, 0, 9)
SIGN_AT = (15, 12, 13, 14)
SCALE_SHIFT = 16
"""Expanded weights are 2^-16 times too small: with the factor 2^126 that e2m1 bits need in the exponent of a bf16, a
large e4m3 scale would overflow."""


@dataclass(frozen=True)
class RepackedWeights:
    """NVFP4 weights of one projection, laid out by :func:`repack`. N' is N padded, a unit 64 x 64."""

    codes: Tensor
    """int32 [L, N' / 64, K / 64, 512]: a unit's words by slab of 16 rows, r, t, step of 16 columns."""
    scales: Tensor
    """int32 [L, N' / 64, K / 64, 64]: by slab, r, two steps; bytes: step, then row r or r + 8 (:func:`scale_bytes`)."""
    global_scale: Tensor
    """float32 [L]."""
    rows: int
    """N."""

    @property
    def columns(self) -> int:
        """K."""
        return UNIT * self.codes.shape[2]


def scale_bytes(scales: Tensor) -> Tensor:
    """Non-negative e4m3 scales as uint8 e5m3: 5 exponent bits of bias 13, no subnormals, hence bits of a bf16.

    Every value stays what it is, NaN included, but 0, which has no such byte: its codes must be 0.
    """
    values = torch.arange(128, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    mantissa, exponent = torch.frexp(values)  # in [0.5, 1): the byte's exponent is one less
    table = ((exponent + 12) << 3) + (16 * mantissa).nan_to_num(8.0).int() - 8
    table[0], table[127] = 0, 255
    return table.to(torch.uint8).to(scales.device)[(scales.view(torch.uint8) & 0x7F).int()]


def repack(weights: NvFp4Tensor) -> RepackedWeights:
    """Lay weights out as fragments.

    Raises:
        ValueError: K is no multiple of 64.
    """
    experts, rows, half = weights.packed.shape
    width = 2 * half
    check(width % UNIT == 0, f"K must be a multiple of {UNIT}, got {width}")
    padded = triton.cdiv(rows, ROW_PADDING.value) * ROW_PADDING.value
    units = (padded // UNIT, width // UNIT)
    codes = torch.empty(experts, *units, 512, dtype=torch.int32, device=weights.packed.device)
    scales = torch.empty(experts, *units, 256, dtype=torch.uint8, device=weights.packed.device)
    for expert in range(experts):  # one at a time: the unpacked codes take many times the room
        e4m3 = weights.scales[expert].view(torch.uint8)
        groups = unpack(weights.packed[expert]).view(rows, width // 16, 16).masked_fill((e4m3 == 0)[..., None], 0)
        groups = torch.nn.functional.pad(groups.flatten(1), (0, 0, 0, padded - rows))
        # [N' / 64, slab, row half, r, K / 64, step, column half, t, odd] to [N' / 64, K / 64, slab, r, t, step, ...]
        fragments = groups.view(units[0], 4, 2, 8, units[1], 4, 2, 4, 2).permute(0, 4, 1, 3, 7, 5, 6, 2, 8).int()
        words = torch.zeros_like(fragments[..., 0, 0, 0])
        for register in range(4):
            code = fragments[..., register // 2, register % 2, :]
            placed = ((code & 7) << MAGNITUDE_AT[register]) | ((code >> 3) << SIGN_AT[register])
            words |= placed[..., 0] | (placed[..., 1] << 16)
        codes[expert] = words.reshape(*units, 512)
        e5m3 = torch.nn.functional.pad(scale_bytes(e4m3), (0, 0, 0, padded - rows))
        e5m3 = e5m3.view(units[0], 4, 2, 8, units[1], 4).permute(0, 4, 1, 3, 5, 2)
        scales[expert] = e5m3.reshape(*units, 256)
    return RepackedWeights(codes, scales.view(torch.int32), weights.global_scale, rows)


def _register(word: int, register: int, shifts: str) -> str:
    """PTX of one register: the bits at their places, times the row's scale."""
    return f"""
        {shifts}
        and.b32 bits, bits, 0x81C081C0;
        fma.rn.bf16x2 ${4 * word + register}, bits, scale{2 * word + register % 2}, nothing;"""


def _expand_ptx() -> str:
    """Two words (steps 2i and 2i + 1) and their word of scales to eight registers."""
    text = ""
    for byte in range(4):  # step, row half: the byte in both halves, its exponent raised to 2^110 times the value
        text += f"""
        prmt.b32 scale{byte}, $10, 0, {0x4040 + 0x101 * byte};
        mad.lo.u32 scale{byte}, scale{byte}, 16, 0x70007000;"""
    for word in range(2):
        source = f"${8 + word}"
        text += _register(word, 0, f"mov.b32 bits, {source};")
        text += _register(word, 1, f"shl.b32 bits, {source}, 3;")
        merged = "lop3.b32 bits, bits, sign, 0x80008000, 0xD8;"  # the sign where the mask is 1
        text += _register(word, 2, f"shl.b32 sign, {source}, 2; shl.b32 bits, {source}, 6; {merged}")
        text += _register(word, 3, f"shl.b32 sign, {source}, 1; shr.b32 bits, {source}, 3; {merged}")
    registers = "bits, sign, nothing, scale0, scale1, scale2, scale3"
    # A product is a multiply-add of -0: compute capability 8.0 has no other on pairs; 9.0 takes one for the other.
    return f"{{\n.reg .b32 {registers};\nmov.b32 nothing, 0x80008000;{text}\n}}"


EXPAND_PTX = tl.constexpr(_expand_ptx())


@triton.jit
def register(words, scales, REGISTER: tl.constexpr, STEP: tl.constexpr):
    """What the PTX makes, in fp32: a register's two values, [..., 4, 2, 2] of words and scales [..., 4, 2].

    The values of both columns of word 2i + STEP, in the places of words 2i and 2i + 1.
    """
    odd_column = 16 * tl.arange(0, 2)
    even, odd = tl.split(words)
    word = odd if STEP else even
    magnitude_at: tl.constexpr = 9 if REGISTER == 3 else 6 - 3 * REGISTER
    sign_at: tl.constexpr = 15 if REGISTER == 0 else 11 + REGISTER
    magnitude = ((word[:, :, :, :, :, :, None] >> (magnitude_at + odd_column)) & 7) << 22  # times 2^-126
    sign = ((word[:, :, :, :, :, :, None] >> (sign_at + odd_column)) & 1) << 31
    factor = (((scales >> (16 * STEP + 8 * (REGISTER % 2))) & 0xFF) << 20) | 0x70000000
    values = (magnitude | sign).to(tl.float32, bitcast=True) * factor.to(tl.float32, bitcast=True)[
        :, :, :, :, :, :, None
    ]
    return values.reshape(words.shape[0], words.shape[1], 4, 8, 4, 4)


@triton.jit
def expand(words, scales, UNITS_N: tl.constexpr, UNITS_K: tl.constexpr, ARITHMETIC: tl.constexpr):
    """Weights times 2^-16, exactly: [64 UNITS_N, 64 UNITS_K] of words [UNITS_N, 512 UNITS_K] and their scales.

    bf16 on a GPU. The interpreter has neither PTX nor bf16 arithmetic: fp32, from the same places of bits.
    """
    both = scales.reshape(UNITS_N, UNITS_K, 4, 8, 1, 2).broadcast_to(UNITS_N, UNITS_K, 4, 8, 4, 2)
    if tl.bfloat16 == ARITHMETIC:
        # Two neighbouring elements are a register: of the two words 2i and 2i + 1, and of each result.
        lanes = words.reshape(UNITS_N, UNITS_K, 4, 8, 4, 4)
        twice = tl.join(both, both).reshape(UNITS_N, UNITS_K, 4, 8, 4, 4)
        a = tl.inline_asm_elementwise(
            EXPAND_PTX, "=&r,=&r,=&r,=&r,=&r,=&r,=&r,=&r,r,r,r,r", [lanes, twice], (tl.bfloat16,) * 8,
            is_pure=True, pack=2,
        )  # fmt: skip
    else:
        pairs = words.reshape(UNITS_N, UNITS_K, 4, 8, 4, 2, 2)
        a = (
            register(pairs, both, 0, 0), register(pairs, both, 1, 0), register(pairs, both, 2, 0),
            register(pairs, both, 3, 0), register(pairs, both, 0, 1), register(pairs, both, 1, 1),
            register(pairs, both, 2, 1), register(pairs, both, 3, 1),
        )  # fmt: skip
    step0 = tl.join(tl.join(a[0], a[1]), tl.join(a[2], a[3]))
    step1 = tl.join(tl.join(a[4], a[5]), tl.join(a[6], a[7]))
    # [N / 64, K / 64, slab, r, t, two steps, odd column, row half, column half, step] to rows and columns
    values = tl.join(step0, step1).reshape(UNITS_N, UNITS_K, 4, 8, 4, 2, 2, 2, 2, 2)
    return values.permute(0, 2, 7, 3, 1, 5, 9, 8, 4, 6).reshape(64 * UNITS_N, 64 * UNITS_K)
