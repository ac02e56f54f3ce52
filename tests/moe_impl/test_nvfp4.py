import pytest
import torch
from decoded import unblocked
from golden_file import META, e4m3, floats, quant_input, tensor
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moe_impl.nvfp4 import (
    E2M1_VALUES,
    NvFp4Tensor,
    decode_bf16,
    dequantize,
    pack,
    quantize,
    swizzle,
    tensor_scale,
    unpack,
)

NAN_BYTE = 0x7F


def scale_bytes(scales: Tensor) -> Tensor:
    """With one NaN: the sign of a NaN scale means nothing."""
    raw = scales.view(torch.uint8)
    return torch.where((raw & NAN_BYTE) == NAN_BYTE, NAN_BYTE, raw)


@pytest.mark.parametrize("rule", ["modelopt", "kernel"])
@pytest.mark.parametrize("case", META["quant_cases"])
def test_quantize_gives_the_golden_bytes(case: str, rule: str) -> None:
    packed, scales = quantize(quant_input(case), tensor(f"{case}/scale_2"), rule)
    expected = scale_bytes(e4m3(f"{case}/{rule}/scales"))
    assert torch.equal(scale_bytes(scales), expected)
    meaningless = ((expected == 0) | (expected == NAN_BYTE)).repeat_interleave(16, -1)
    wrong = unpack(packed) != unpack(tensor(f"{case}/{rule}/packed"))
    assert not (wrong & ~meaningless).any()


@pytest.mark.parametrize("case", META["quant_cases"])
def test_dequantize_gives_the_golden_bits(case: str) -> None:
    values = dequantize(tensor(f"{case}/modelopt/packed"), e4m3(f"{case}/modelopt/scales"), tensor(f"{case}/scale_2"))
    torch.testing.assert_close(values, floats(f"{case}/dequant_bits"), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("case", META["decode_cases"])
def test_dequantize_knows_every_code_and_scale_byte(case: str) -> None:
    values = dequantize(tensor(f"{case}/packed"), e4m3(f"{case}/scales"), tensor(f"{case}/scale_2"))
    torch.testing.assert_close(values, floats(f"{case}/dequant_bits"), rtol=0, atol=0, equal_nan=True)


def test_decode_bf16_is_exact_for_all_1016_pairs_and_both_signs() -> None:
    scale_bytes = torch.arange(127, dtype=torch.uint8)
    exponent, mantissa = (scale_bytes >> 3).double(), (scale_bytes & 7).double()
    scale_values = torch.where(exponent == 0, mantissa / 8 * 2**-6, (1 + mantissa / 8) * 2 ** (exponent - 7))
    packed = pack(torch.arange(16, dtype=torch.uint8)).expand(127, 8)
    decoded = decode_bf16(packed, scale_bytes.view(torch.float8_e4m3fn)[:, None])
    assert decoded.dtype == torch.bfloat16
    assert torch.equal(decoded.double(), torch.tensor(E2M1_VALUES).double() * scale_values[:, None])


def test_quantize_leaves_its_input_alone() -> None:
    x = torch.randn(4, 32)
    before = x.clone()
    for rule in ("modelopt", "kernel"):
        quantize(x, tensor_scale(x), rule)
    assert torch.equal(x, before)


def test_quantize_takes_one_scale_per_expert() -> None:
    x = torch.randn(3, 5, 32) * torch.tensor([1.0, 10.0, 0.01])[:, None, None]
    per_expert = torch.stack([tensor_scale(expert) for expert in x])
    packed, scales = quantize(x, per_expert[:, None, None])
    for expert in range(3):
        alone_packed, alone_scales = quantize(x[expert], per_expert[expert])
        assert torch.equal(packed[expert], alone_packed)
        assert torch.equal(scales[expert].view(torch.uint8), alone_scales.view(torch.uint8))


def test_quantizing_decoded_values_again_changes_nothing() -> None:
    x = torch.randn(64, 64, dtype=torch.bfloat16)
    scale = tensor_scale(x)
    values = dequantize(*quantize(x, scale), scale)
    assert torch.equal(dequantize(*quantize(values, scale), scale), values)


def test_a_decoded_value_is_within_half_a_step_of_its_input() -> None:
    x = torch.randn(64, 64)
    scale = tensor_scale(x)
    packed, scales = quantize(x, scale)
    step = (scales.float() * scale).repeat_interleave(16, -1)  # the widest half step, between codes 4 and 6
    assert ((dequantize(packed, scales, scale) - x).abs() <= step * 1.0001).all()


@pytest.mark.parametrize(
    ("x", "scale", "rule", "message"),
    [
        (torch.zeros(2, 24), torch.tensor(1.0), "modelopt", "multiple of 16"),
        (torch.zeros(2, 16, dtype=torch.float64), torch.tensor(1.0), "modelopt", "float64"),
        (torch.zeros(2, 16, dtype=torch.int32), torch.tensor(1.0), "modelopt", "int32"),
        (torch.zeros(2, 16), torch.tensor(1.0, dtype=torch.float64), "modelopt", "global_scale must be float32"),
        (torch.zeros(2, 32), torch.ones(2), "modelopt", "last dimension of global_scale"),
        (torch.zeros(2, 16), torch.tensor(1.0), "torchao", "torchao"),
    ],
)
def test_quantize_refuses_what_it_cannot_mean(x: Tensor, scale: Tensor, rule: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize(x, scale, rule)


def test_dequantize_refuses_scales_of_another_shape() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        dequantize(torch.zeros(2, 16, dtype=torch.uint8), torch.zeros(2, 4).to(torch.float8_e4m3fn), torch.tensor(1.0))


def test_tensor_scale_divides_the_largest_magnitude_by_2688() -> None:
    x = torch.tensor([[1.0, -7.3, 2.0]])
    assert tensor_scale(x) == torch.tensor(7.3) / torch.tensor(2688.0)
    assert tensor_scale(x.bfloat16()).dtype == torch.float32
    assert tensor_scale(x).shape == ()


def test_tensor_scale_of_zeros_or_nothing_is_one() -> None:
    assert tensor_scale(torch.zeros(2, 16)) == 1
    assert tensor_scale(torch.zeros(0, 16)) == 1


@given(st.lists(st.integers(0, 15), min_size=2, max_size=64).filter(lambda codes: len(codes) % 2 == 0))
def test_unpack_inverts_pack(codes: list[int]) -> None:
    packed = pack(torch.tensor(codes, dtype=torch.uint8))
    assert packed.tolist() == [low + 16 * high for low, high in zip(codes[::2], codes[1::2], strict=True)]
    assert unpack(packed).tolist() == codes


@pytest.mark.parametrize("case", META["swizzle_cases"])
def test_swizzle_gives_the_golden_bytes(case: str) -> None:
    assert torch.equal(swizzle(e4m3(f"{case}/linear")).view(torch.uint8), tensor(f"{case}/blocked"))


@given(st.integers(1, 3), st.integers(1, 300), st.integers(1, 11))
def test_swizzle_puts_each_scale_where_it_lies_expert_by_expert(experts: int, rows: int, cols: int) -> None:
    scales = torch.randint(0, 255, (experts, rows, cols), dtype=torch.uint8)
    blocked = swizzle(scales)
    assert torch.equal(unblocked(blocked, rows, cols), scales)
    assert torch.equal(blocked[-1], swizzle(scales[-1]))


def test_from_dense_quantizes_each_expert_by_its_own_scale() -> None:
    values = (torch.randn(3, 4, 32) * torch.tensor([1.0, 100.0, 0.0])[:, None, None]).bfloat16()
    weights = NvFp4Tensor.from_dense(values)
    assert weights.global_scale[2] == 1
    for expert in range(3):
        scale = tensor_scale(values[expert])
        packed, scales = quantize(values[expert], scale)
        assert torch.equal(weights.packed[expert], packed)
        assert torch.equal(weights.scales[expert].view(torch.uint8), scales.view(torch.uint8))
        assert weights.global_scale[expert] == scale


def test_from_dense_refuses_a_single_matrix() -> None:
    with pytest.raises(ValueError, match=r"\[L, N, K\]"):
        NvFp4Tensor.from_dense(torch.zeros(4, 32))
