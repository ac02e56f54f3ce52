"""The NVFP4 format in plain torch: quantize, dequantize, pack, swizzle; any device, no kernel of ours.

Values are e2m1, two a byte (element 2i in the low nibble); every 16 consecutive elements of a row share one e4m3 scale
and the whole tensor one fp32 *decode* scale (ModelOpt's ``weight_scale_2`` / ``input_scale``):

    value = fl(e2m1 * fl(e4m3 * global_scale))          fl: one fp32 rounding to nearest even

Order and number of roundings decide bytes, so no two operations are merged and nothing is divided by a host scalar:
on CUDA torch would multiply by that scalar's reciprocal instead.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from moe_impl.shapes import NVFP4_BLOCK

Rule = Literal["modelopt", "kernel"]
"""``modelopt``: nvidia-modelopt's NVFP4QTensor (weights); ``kernel``: flashinfer's and TensorRT-LLM's (activations)."""

E4M3_MAX = 448.0
E4M3_TINY = 2.0**-9
"""Smallest e4m3 value above 0: rule ``modelopt`` never stores a zero scale."""
E2M1_MAX = 6.0
E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""By code; bit 3 is the sign."""

TIES_DOWN = (0.25, 1.25, 2.5, 5.0)
TIES_UP = (0.75, 1.75, 3.5)
"""Midpoints between neighbouring e2m1 values, by the side to which round-to-nearest-even sends them."""

TILE_ROWS, TILE_COLS = 128, 4
"""A tile of the blocked scale layout, stored as [32][4][4] = [r % 32][r // 32][c]."""


def tensor_scale(x: Tensor) -> Tensor:
    """Decode scale that maps x's largest magnitude to 6 * 448: fp32 0-d, 1 for an all-zero (or empty) tensor.

    A NaN or Inf in x ends up in the scale, as it does in ModelOpt.
    """
    if x.numel() == 0:
        return torch.ones((), device=x.device)
    low, high = torch.aminmax(x)
    amax = torch.maximum(-low, high).float()
    return torch.where(amax == 0, 1.0, amax / torch.full_like(amax, E2M1_MAX * E4M3_MAX))


def quantize(x: Tensor, global_scale: Tensor, rule: Rule = "modelopt") -> tuple[Tensor, Tensor]:
    """Quantize rows to NVFP4 under a given tensor scale. Leaves x alone.

    Args:
        x: fp32, bf16 or fp16 [..., K], K a multiple of 16.
        global_scale: fp32 decode scale: 0-d, or with a last dimension of 1 and leading dimensions that broadcast
            against x's ([E, 1, 1] for [E, N, K]).
        rule: whose order of operations.

    Returns:
        packed uint8 [..., K / 2] and scales float8_e4m3fn [..., K / 16]. Under ``modelopt`` a block with a NaN gets a
        NaN scale; under ``kernel`` a NaN becomes +6 and does not count. Codes of blocks whose scale is NaN or 0 carry
        no meaning.

    Raises:
        ValueError: K, a dtype, the shape of global_scale or the rule.
    """
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"x must be float32, bfloat16 or float16, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] % NVFP4_BLOCK:
        raise ValueError(f"the last dimension of x must be a multiple of {NVFP4_BLOCK}, got shape {tuple(x.shape)}")
    if rule not in get_args(Rule):
        raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}, got {rule!r}")
    global_scale = _checked_scale(global_scale, x)
    blocks = x.float().unflatten(-1, (-1, NVFP4_BLOCK))
    scaled = _modelopt if rule == "modelopt" else _kernel
    scales, magnitudes, negative = scaled(blocks, global_scale)
    codes = _nearest_codes(magnitudes)
    codes += negative.to(torch.uint8) << 3
    return pack(codes.flatten(-2)), scales


def _checked_scale(global_scale: Tensor, like: Tensor) -> Tensor:
    if global_scale.dtype != torch.float32:
        raise ValueError(f"global_scale must be float32, got {global_scale.dtype}")
    if global_scale.dim() and global_scale.shape[-1] != 1:
        raise ValueError(f"the last dimension of global_scale must be 1, got shape {tuple(global_scale.shape)}")
    return global_scale.to(like.device)


def _modelopt(blocks: Tensor, global_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales, magnitudes to round to e2m1, and signs. True divisions; amax and clamp keep a NaN."""
    ratio = blocks.abs().amax(-1) / (E2M1_MAX * global_scale)
    ratio = torch.where(ratio == 0, 1.0, ratio).clamp(E4M3_TINY, E4M3_MAX)
    scales = ratio.to(torch.float8_e4m3fn)
    quotients = blocks / (scales.float() * global_scale)[..., None]
    return scales, quotients.abs_(), blocks < 0  # -0.0 becomes +0, a small negative stays negative


def _kernel(blocks: Tensor, global_scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same in flashinfer's order, with correctly rounded reciprocals in place of ``rcp.approx``."""
    encode_scale = global_scale.reciprocal()
    not_a_number = blocks.isnan()
    # fmax drops NaN unless there is nothing else; -1 marks a block of NaN only.
    amax = blocks.abs().masked_fill_(not_a_number, -1.0).amax(-1)
    amax = torch.where(amax < 0, torch.nan, amax)
    scales = (encode_scale * (amax * (1 / 6))).clamp(max=E4M3_MAX).to(torch.float8_e4m3fn)
    factor = (scales.float() * encode_scale.reciprocal()).reciprocal()
    factor = torch.where(amax == 0, 0.0, factor)
    magnitudes = (blocks * factor[..., None]).abs_()
    return scales, magnitudes.masked_fill_(not_a_number, E2M1_MAX), blocks.signbit() & ~not_a_number


def _nearest_codes(magnitudes: Tensor) -> Tensor:
    """e2m1 code 0..7 of each non-negative value: nearest, ties to even, saturating; uint8.

    Equals NVIDIA's ``__nv_cvt_float_to_fp4`` for every non-negative fp32 value.
    """
    codes = torch.zeros_like(magnitudes, dtype=torch.uint8)
    for midpoint in TIES_DOWN:
        codes += magnitudes > midpoint
    for midpoint in TIES_UP:
        codes += magnitudes >= midpoint
    return codes


def pack(codes: Tensor) -> Tensor:
    """uint8 codes 0..15 [..., K] to bytes [..., K / 2], element 2i in the low nibble."""
    return codes[..., 0::2] | (codes[..., 1::2] << 4)


def unpack(packed: Tensor) -> Tensor:
    """Bytes [..., K / 2] to uint8 codes 0..15 [..., K]: the inverse of :func:`pack`."""
    return torch.stack((packed & 0xF, packed >> 4), -1).flatten(-2)


def _e2m1_blocks(packed: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """e2m1 values [..., K / 16, 16]: a byte looks both of its values up at once."""
    if packed.shape[:-1] != scales.shape[:-1] or packed.shape[-1] * 2 != scales.shape[-1] * NVFP4_BLOCK:
        raise ValueError(f"scales {tuple(scales.shape)} do not fit packed {tuple(packed.shape)}")
    pairs = [(E2M1_VALUES[byte & 0xF], E2M1_VALUES[byte >> 4]) for byte in range(256)]
    table = torch.tensor(pairs, dtype=dtype, device=packed.device)
    return torch.nn.functional.embedding(packed.int(), table).view(*scales.shape, NVFP4_BLOCK)


def dequantize(packed: Tensor, scales: Tensor, global_scale: Tensor) -> Tensor:
    """fp32 values [..., K], in the order of the module's formula.

    Args:
        packed: uint8 [..., K / 2].
        scales: float8_e4m3fn [..., K / 16].
        global_scale: as in :func:`quantize`.

    Raises:
        ValueError: shapes that do not fit each other, or global_scale's dtype or shape.
    """
    factors = scales.float() * _checked_scale(global_scale, packed)
    return _e2m1_blocks(packed, scales, torch.float32).mul_(factors[..., None]).flatten(-2)


def decode_bf16(packed: Tensor, scales: Tensor) -> Tensor:
    """e2m1 * e4m3 as bf16 [..., K], without the tensor scale: exact, a product has at most 6 significant bits.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    factors = scales.to(torch.bfloat16)
    return _e2m1_blocks(packed, scales, torch.bfloat16).mul_(factors[..., None]).flatten(-2)


def swizzle(scales: Tensor) -> Tensor:
    """Linear scales [..., R, C] to the 128x4 blocked layout of cuBLAS and CUTLASS, zero-padded: flat [..., R' * C'].

    Leading dimensions (experts) are blocked one by one. dtype (e4m3 or uint8) is kept. Tiles go row-tile major.
    """
    *lead, rows, cols = scales.shape
    padded = torch.nn.functional.pad(scales.view(torch.uint8), (0, -cols % TILE_COLS, 0, -rows % TILE_ROWS))
    tiles = padded.view(*lead, padded.shape[-2] // TILE_ROWS, 4, 32, padded.shape[-1] // TILE_COLS, TILE_COLS)
    # [row tile, r // 32, r % 32, column tile, c] to [row tile, column tile, r % 32, r // 32, c]
    return tiles.movedim(-2, -4).transpose(-3, -2).flatten(-5).view(scales.dtype)


@dataclass(frozen=True)
class NvFp4Tensor:
    """One layer's weights of L experts, each with its own tensor scale."""

    packed: Tensor
    """uint8 [L, N, K / 2]."""
    scales: Tensor
    """float8_e4m3fn [L, N, K / 16], linear layout."""
    global_scale: Tensor
    """fp32 [L], decode scales."""

    @classmethod
    def from_dense(cls, values: Tensor) -> "NvFp4Tensor":
        """Quantize [L, N, K] by rule ``modelopt``, one expert at a time: temporaries stay at one expert's size.

        Raises:
            ValueError: not three dimensions, or what :func:`quantize` refuses.
        """
        if values.dim() != 3:
            raise ValueError(f"values must be [L, N, K], got shape {tuple(values.shape)}")
        L, N, K = values.shape
        packed = torch.empty(L, N, K // 2, dtype=torch.uint8, device=values.device)
        scales = torch.empty(L, N, K // NVFP4_BLOCK, dtype=torch.float8_e4m3fn, device=values.device)
        global_scale = torch.empty(L, dtype=torch.float32, device=values.device)
        for expert in range(L):
            global_scale[expert] = tensor_scale(values[expert])
            packed[expert], scales[expert] = quantize(values[expert], global_scale[expert])
        return cls(packed, scales, global_scale)
