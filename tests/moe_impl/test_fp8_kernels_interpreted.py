"""FP8's kernels in Triton's interpreter against plain torch: the same bits. Uninitialised memory is NaN here."""

import interpreted
import pytest
import torch
from drawn import normal
from torch import Tensor

from moe_impl import fp8, rows
from moe_impl.experts import fp8_rows
from moe_impl.layer import route_plain
from moe_impl.payload import stored_row_bytes
from moe_impl.rows import Pairs
from moe_impl.shapes import Router

pytestmark = [
    interpreted.WHERE,
    pytest.mark.usefixtures("uninitialised_memory_is_nan"),
    pytest.mark.filterwarnings("ignore:divide by zero", "ignore:overflow", "ignore:invalid value"),  # numpy's
]

H, BYTES = 96, 100
"""Values of a row, and its bytes with the scale: padded to 128 in the kernel and to 112 in memory."""


def hard_rows() -> Tensor:
    """bf16 rows of every size: zeros of both signs, the smallest and the largest numbers, ties, mixed sizes.

    No subnormal ones, which the interpreter loads as 0; a GPU test has them.
    """
    x = normal(10, H)
    x[1] = 0.0
    x[2] = -0.0
    x[3] = 2.0**-126
    x[4] = 1e38 * x[4].clamp(-3, 3)
    x[5] *= 1e-33
    x[6, ::2] = 0.0
    x[7] *= torch.exp2(torch.arange(H) - 48.0)
    x[8] = torch.arange(H) / 16  # the largest is near 6: ties and their neighbours
    x[9] = torch.linspace(-448, 448, H)
    return x.bfloat16()


def test_rows_are_quantized_to_the_bits_of_plain_torch() -> None:
    from moe_impl.kernels.quantize_fp8 import quantize_fp8

    x = hard_rows()
    found, plain = quantize_fp8(x), fp8_rows.quantize_rows(x)
    assert found.shape == plain.shape == (10, 112) == (10, stored_row_bytes("fp8", H))
    assert torch.equal(found[:, :BYTES], plain[:, :BYTES])


def test_every_code_is_rounded_to_as_torch_rounds() -> None:
    """A row whose largest value is 448 has scale 1: all codes, and both sides of each tie."""
    from moe_impl.kernels.quantize_fp8 import quantize_fp8

    finite = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    ties = (finite[:-1] + finite[1:]) / 2
    values = torch.cat((finite, *(ties * (1 + step * 2.0**-7) for step in (-1, 0, 1))))
    x = torch.nn.functional.pad(torch.cat((values, -values)), (0, 6)).bfloat16()[None]
    found, plain = quantize_fp8(x), fp8_rows.quantize_rows(x)
    assert torch.equal(found[0, : x.shape[1] + 4], plain[0, : x.shape[1] + 4])
    assert set(plain[0, : x.shape[1]].tolist()) == set(range(127)) | set(range(128, 255))


def test_a_payload_row_holds_codes_then_its_scale() -> None:
    x = normal(3, H).bfloat16()
    codes, scales = fp8.quantize_rows(x)
    payload = fp8_rows.quantize_rows(x)
    assert torch.equal(payload[:, :H], codes.view(torch.uint8))
    assert torch.equal(payload[:, H:BYTES].contiguous().view(torch.float32)[:, 0], scales)


@pytest.mark.parametrize("count", [0, 5, 10])
def test_rows_past_the_count_are_neither_read_nor_written(count: int) -> None:
    from moe_impl.kernels.quantize_fp8 import quantize_fp8

    x = hard_rows()
    whole = quantize_fp8(x)
    x[count:] = torch.nan
    found = quantize_fp8(x, torch.tensor([count], dtype=torch.int32))
    assert torch.equal(found[:count, :BYTES], whole[:count, :BYTES])
    assert (found[count:] == 255).all(), "as they came"
    assert (found[:, BYTES:] == 255).all(), "what pads a row"


def test_gathered_pairs_are_their_rows() -> None:
    from moe_impl.kernels.gather_fp8 import gather_fp8

    plan = route_plain(normal(9, 12), Router(), 3, None, 12, 3)
    pairs = rows.plan_pairs(plan, 4)
    x = normal(plan.capacity, H, seed=1).bfloat16()
    payload = fp8_rows.quantize_rows(x, plan.num_rows)
    (found, scale_P), (plain, plain_scale_P) = (one(payload, pairs, H) for one in (gather_fp8, fp8_rows.gather_rows))
    used = int(pairs.ends_L[-1])
    assert used == 9 * 3
    assert found.shape == plain.shape == (plan.capacity * 3, H)
    codes, scales = fp8.quantize_rows(x[pairs.row_P[:used].long()])  # type: ignore[index]
    for codes_PH, of_P in ((found, scale_P), (plain, plain_scale_P)):
        assert torch.equal(codes_PH[:used].view(torch.uint8), codes.view(torch.uint8))
        assert torch.equal(of_P[:used], scales)
    assert scale_P[used:].isnan().all(), "as they came"


def test_pairs_that_are_their_rows_lose_only_the_padding() -> None:
    from moe_impl.kernels.gather_fp8 import gather_fp8

    x, pairs = hard_rows(), Pairs(torch.tensor([10], dtype=torch.int32), None, None)
    codes, scales = fp8.quantize_rows(x)
    for gather in (gather_fp8, fp8_rows.gather_rows):
        found, scale_P = gather(fp8_rows.quantize_rows(x), pairs, H)
        assert found.is_contiguous()
        assert torch.equal(found.view(torch.uint8), codes.view(torch.uint8))
        assert torch.equal(scale_P, scales)


def test_h_is_quantized_from_its_fp32_value() -> None:
    from moe_impl.kernels.silu_mul_fp8 import silu_mul_fp8

    gate_up, ends = 3 * normal(90, 2 * 48).bfloat16(), torch.tensor([0, 30, 30, 71], dtype=torch.int32)
    gate_up[7] = 0.0
    gate_up[71:] = torch.nan
    (found, scale_P), (plain, plain_scale_P) = (one(gate_up, ends) for one in (silu_mul_fp8, fp8_rows.silu_mul))
    assert found.shape == (90, 48)
    # numpy's and torch's exp may differ in a last bit, which moves a value across a tie once in a hundred thousand.
    torch.testing.assert_close(scale_P[:71], plain_scale_P[:71], rtol=1e-6, atol=0)
    assert (found[:71].view(torch.uint8) != plain[:71].view(torch.uint8)).sum() <= 2
    gate, up = gate_up[:71].double().chunk(2, -1)
    exact = torch.nn.functional.silu(gate) * up
    assert 0.015 < (found[:71].double() * scale_P[:71, None] - exact).norm() / exact.norm() < 0.04


def test_h_of_gates_so_large_that_silu_is_the_gate_itself_has_plain_torchs_bits() -> None:
    """exp(-gate) is then 0 everywhere, so that nothing but products, scales and codes is left to differ."""
    from moe_impl.kernels.silu_mul_fp8 import silu_mul_fp8

    gate, up = 128 + 100 * normal(40, H).abs(), normal(40, H, seed=1)
    gate_up, ends = torch.cat((gate, up), 1).bfloat16(), torch.tensor([40], dtype=torch.int32)
    (found, scale_P), (plain, plain_scale_P) = (one(gate_up, ends) for one in (silu_mul_fp8, fp8_rows.silu_mul))
    assert torch.equal(scale_P, plain_scale_P)
    assert torch.equal(found.view(torch.uint8), plain.view(torch.uint8))


def test_nothing_is_launched_for_no_rows() -> None:
    from moe_impl.kernels.gather_fp8 import gather_fp8
    from moe_impl.kernels.quantize_fp8 import quantize_fp8
    from moe_impl.kernels.silu_mul_fp8 import silu_mul_fp8

    nothing, ends = torch.zeros(0, H).bfloat16(), torch.zeros(3, dtype=torch.int32)
    payload = quantize_fp8(nothing)
    assert payload.shape == (0, 112)
    assert [part.shape for part in gather_fp8(payload, Pairs(ends, ends[:0], None), H)] == [(0, H), (0,)]
    assert [part.shape for part in silu_mul_fp8(nothing, ends)] == [(0, H // 2), (0,)]


def test_what_does_not_fit_is_refused() -> None:
    from moe_impl.kernels.gather_fp8 import gather_fp8
    from moe_impl.kernels.quantize_fp8 import quantize_fp8
    from moe_impl.kernels.silu_mul_fp8 import silu_mul_fp8

    ends, row = torch.tensor([1], dtype=torch.int32), torch.zeros(1, 112, dtype=torch.uint8)
    with pytest.raises(ValueError, match="a multiple of 4 wide, got 42"):
        quantize_fp8(torch.zeros(1, 42).bfloat16())
    with pytest.raises(ValueError, match="rows of 96 values take 112 bytes, got 96"):
        gather_fp8(row[:, :96], Pairs(ends, None, None), H)
    with pytest.raises(ValueError, match="pairs must be packed, got layout per_expert"):
        gather_fp8(row, Pairs(ends, None, None, expert_stride=1), H)
    with pytest.raises(ValueError, match=r"expected \[P', 2I\], got \(1, 33\)"):
        silu_mul_fp8(torch.zeros(1, 33).bfloat16(), ends)
