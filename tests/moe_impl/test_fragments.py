"""Weights as A fragments: each code and scale where the kernel's PTX looks for it, and what that PTX makes of them."""

import re

import interpreted
import pytest
import torch
from torch import Tensor

from moe_impl.nvfp4 import E2M1_VALUES, NvFp4Tensor, pack

pytestmark = [interpreted.WHERE]


def by_ptx(text: str, inputs: dict[str, int]) -> dict[str, int]:
    """Run PTX of 32-bit integer instructions and bf16x2 multiply-adds; registers to their bits."""
    values = dict(inputs)

    def value(name: str) -> int:
        return values[name] if name in values else int(name, 0)

    def product_and_sum(a: int, b: int, c: int) -> int:
        pairs = torch.tensor([a, b, c], dtype=torch.int64).to(torch.int32).view(torch.bfloat16).view(3, 2).double()
        return int((pairs[0] * pairs[1] + pairs[2]).bfloat16().view(torch.int32)) & 0xFFFFFFFF

    def chosen_bytes(a: int, b: int, selector: int) -> int:
        eight = (a | b << 32).to_bytes(8, "little")
        return int.from_bytes(bytes(eight[(selector >> 4 * i) & 7] for i in range(4)), "little")

    def by_table(a: int, b: int, c: int, table: int) -> int:
        places = [(a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1 for i in range(32)]
        return sum((table >> place & 1) << i for i, place in enumerate(places))

    operations = {
        "mov.b32": lambda a: a,
        "shl.b32": lambda a, by: a << by,
        "shr.b32": lambda a, by: a >> by,
        "and.b32": lambda a, b: a & b,
        "mad.lo.u32": lambda a, b, c: a * b + c,
        "prmt.b32": chosen_bytes,
        "lop3.b32": by_table,
        "fma.rn.bf16x2": product_and_sum,
    }
    for operation, operands in re.findall(r"([a-z][\w.]+) ([^;{}]+);", text):
        if operation != ".reg" and operation in operations:
            target, *sources = [operand.strip() for operand in operands.split(",")]
            values[target] = operations[operation](*map(value, sources)) & 0xFFFFFFFF
        else:
            assert operation in ("reg", "b32"), f"unknown instruction {operation}"
    return values


def halves(bits: int) -> list[float]:
    return [float(x) for x in torch.tensor([bits]).to(torch.int32).view(torch.bfloat16).double()]


def one_unit(codes_NK: Tensor, scales_NG: Tensor) -> tuple[list[int], list[int]]:
    """Words of codes and scales of a unit of 64 x 64, as repacked."""
    from moe_impl.kernels.nvfp4_fragments import repack

    weights = NvFp4Tensor(pack(codes_NK)[None], scales_NG.view(torch.float8_e4m3fn)[None], torch.ones(1))
    packed = repack(weights)
    return [
        [int(word) & 0xFFFFFFFF for word in words.flatten().tolist()]
        for words in (packed.codes[0, 0, 0], packed.scales[0, 0, 0])
    ]


@pytest.mark.parametrize(("slab", "r", "t"), [(0, 0, 0), (1, 5, 2), (3, 7, 3)])
def test_a_lane_finds_its_fragments_where_the_ptx_looks(slab: int, r: int, t: int) -> None:
    """PTX ISA's A fragment of m16n8k16: registers (row r, r + 8) x (columns 2t, 2t + 8), each with its neighbour."""
    from moe_impl.kernels.nvfp4_fragments import EXPAND_PTX

    generator = torch.Generator().manual_seed(slab)
    codes = torch.randint(0, 16, (64, 64), generator=generator, dtype=torch.uint8)
    scales = torch.randint(1, 127, (64, 4), generator=generator, dtype=torch.uint8)
    words, scale_words = one_unit(codes, scales)
    factors = scales.view(torch.float8_e4m3fn).double() * 2.0**-16
    for two_steps in range(2):
        at = ((slab * 8 + r) * 4 + t) * 4 + 2 * two_steps
        scale = scale_words[(slab * 8 + r) * 2 + two_steps]
        found = by_ptx(EXPAND_PTX.value, {"$8": words[at], "$9": words[at + 1], "$10": scale, "$11": scale})
        for register in range(8):
            step, row = 2 * two_steps + register // 4, 16 * slab + r + 8 * (register % 2)
            column = 16 * step + 8 * (register % 4 // 2) + 2 * t
            exact = [E2M1_VALUES[codes[row, column + odd]] * float(factors[row, step]) for odd in range(2)]
            assert halves(found[f"${register}"]) == exact, (two_steps, register)


def test_the_ptx_expands_every_code_under_every_scale_exactly() -> None:
    from moe_impl.kernels.nvfp4_fragments import EXPAND_PTX

    for byte in (*range(1, 127, 5), 126):
        scales = torch.full((64, 4), byte, dtype=torch.uint8)
        codes = torch.arange(16, dtype=torch.uint8).repeat(256).view(64, 64).roll(byte, 1)
        words, scale_words = one_unit(codes, scales)
        seen = set()
        for at in (0, 4, 8, 12):  # four lanes hold 16 columns
            given = {"$8": words[at], "$9": words[at + 1], "$10": scale_words[0], "$11": scale_words[0]}
            found = by_ptx(EXPAND_PTX.value, given)
            seen |= {value for register in range(8) for value in halves(found[f"${register}"])}
        scale = float(scales.view(torch.float8_e4m3fn)[0, 0].double()) * 2.0**-16
        assert seen == {value * scale for value in E2M1_VALUES}, byte


def test_every_e4m3_scale_is_kept_but_zero_whose_codes_become_zero() -> None:
    from moe_impl.kernels.nvfp4_fragments import scale_bytes

    scales = torch.arange(128, dtype=torch.uint8).view(torch.float8_e4m3fn)
    raised = ((scale_bytes(scales).int() << 4) | 0x7000).short().view(torch.bfloat16).double()
    assert torch.equal(raised[1:127], scales.double()[1:127] * 2.0**110)
    assert raised[127].isnan()
    codes = torch.full((64, 64), 5, dtype=torch.uint8)
    words, _ = one_unit(codes, torch.tensor([0, 56, 56, 56], dtype=torch.uint8).repeat(64, 1))
    assert [word == 0 for word in words[:4]] == [True, False, False, False]


def test_rows_are_padded_with_zeros_to_whole_tiles() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack

    packed = repack(NvFp4Tensor.from_dense(torch.ones(2, 40, 192)))
    assert (packed.codes.shape, packed.scales.shape) == ((2, 2, 3, 512), (2, 2, 3, 64))
    assert (packed.rows, packed.columns) == (40, 192)
    assert not packed.codes[:, 1].any()
    slabs = packed.codes[:, 0].view(2, 3, 4, 8, 4, 4)
    assert slabs[:, :, :2].all(), "rows 0 to 31"
    assert not slabs[:, :, 3].any(), "rows 48 to 63"


def test_k_must_be_whole_units() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack

    with pytest.raises(ValueError, match="K must be a multiple of 64, got 96"):
        repack(NvFp4Tensor.from_dense(torch.ones(1, 16, 96)))
