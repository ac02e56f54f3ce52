"""FP8 with one scale a row: what the format holds, and how it rounds."""

import pytest
import torch
from drawn import normal
from torch import Tensor

from moe_impl.fp8 import E4M3_MAX, Fp8Tensor, quantize_rows


def decoded(codes: Tensor, scales: Tensor) -> Tensor:
    return codes.double() * scales.double()[..., None]


def test_every_row_is_scaled_by_its_own_largest_magnitude() -> None:
    x = normal(4, 96) * torch.tensor([1.0, 1e-6, 1e6, 300.0])[:, None]
    codes, scales = quantize_rows(x)
    assert (codes.dtype, scales.dtype) == (torch.float8_e4m3fn, torch.float32)
    assert torch.equal(scales, x.abs().amax(1) / torch.full((4,), 448.0))
    assert (codes.float().abs().amax(1) == E4M3_MAX).all()
    assert 0.015 < (decoded(codes, scales) - x).norm(dim=1).div(x.norm(dim=1)).max() < 0.04, "four bits of significand"


def test_codes_are_the_nearest_and_a_tie_goes_to_the_even_one() -> None:
    values = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    midpoints = (values[:-1] + values[1:]) / 2
    x = torch.cat((values, midpoints, midpoints * (1 + 2**-20), midpoints * (1 - 2**-20)))
    codes = quantize_rows(torch.stack((x, -x)))[0].view(torch.uint8).int()  # the largest is 448: a scale of 1
    lower = torch.arange(126)
    expected = torch.cat((torch.arange(127), lower + lower % 2, lower + 1, lower))
    assert torch.equal(codes[0], expected.int())
    assert torch.equal(codes[1], expected.int() + 128), "-0, too"


def test_a_row_of_zeros_has_scale_1() -> None:
    codes, scales = quantize_rows(torch.tensor([[0.0, -0.0], [0.0, 2.0]]).bfloat16())
    assert scales.tolist() == [1.0, pytest.approx(2 / 448)]
    assert codes.float().tolist() == [[0, 0], [0, 448]]


@pytest.mark.parametrize("size", [2.0**-149, 5 * 2.0**-149, 671 * 2.0**-149, 2.0**-133, 3e38])
def test_numbers_at_both_ends_of_fp32_give_no_nan(size: float) -> None:
    x = torch.tensor([[size, -size / 2]])
    codes, scales = quantize_rows(x)
    assert codes.float().isfinite().all()
    assert scales.isfinite().all()
    assert (scales > 0).all()


def test_a_nan_stays_one() -> None:
    assert quantize_rows(torch.tensor([[1.0, torch.nan]]))[0].float().isnan().any()


def test_no_rows_give_no_codes() -> None:
    codes, scales = quantize_rows(torch.zeros(0, 32))
    assert (codes.shape, scales.shape) == ((0, 32), (0,))


def test_weights_have_one_scale_an_output_channel() -> None:
    dense = normal(3, 8, 32).bfloat16()
    weights = Fp8Tensor.from_dense(dense)
    assert (weights.codes.shape, weights.scales.shape) == ((3, 8, 32), (3, 8))
    for expert in range(3):
        codes, scales = quantize_rows(dense[expert])
        assert torch.equal(weights.codes[expert].view(torch.uint8), codes.view(torch.uint8))
        assert torch.equal(weights.scales[expert], scales)
    with pytest.raises(ValueError, match=r"values must be \[L, N, K\], got shape \(8, 32\)"):
        Fp8Tensor.from_dense(dense[0])
