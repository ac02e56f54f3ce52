"""W4A4's kernels in Triton's interpreter against plain torch: the same bits. Uninitialised memory is NaN here."""

import interpreted
import pytest
import torch
from drawn import normal
from interpreted import bf16_steps_apart
from torch import Tensor

from moe_impl import rows
from moe_impl.experts import nvfp4_rows
from moe_impl.nvfp4 import decode_bf16, quantize, unpack
from moe_impl.payload import stored_row_bytes
from moe_impl.rows import Pairs
from moe_impl.shapes import Router

pytestmark = [
    interpreted.WHERE,
    pytest.mark.usefixtures("uninitialised_memory_is_nan"),
    pytest.mark.filterwarnings("ignore:divide by zero", "ignore:overflow", "ignore:invalid value"),  # numpy's
]

H, BYTES = 96, 54
"""Values of a row, and its code and scale bytes: 6 blocks, padded to 8 in the kernel and to 64 bytes in memory."""
SCALES = (1.0, 0.01, 7.3e-4, 3.0e5, 2.0**-20)


def hard_rows() -> Tensor:
    """bf16 rows of every size: zeros of both signs, the smallest and the largest numbers, blocks of mixed sizes."""
    x = normal(12, H)
    x[1] = 0.0
    x[2] = -0.0
    x[3] *= 1e-38
    x[4] *= 1e38
    x[5, 16:32] *= 1e-6
    x[6, ::2] = 0.0
    x[7] *= torch.exp2(torch.arange(H) - 48.0)
    x[8] = torch.arange(H) / 8  # ties
    x[9, 40] = torch.inf
    return x.bfloat16()


@pytest.mark.parametrize("scale", SCALES)
def test_rows_are_quantized_to_the_bits_of_plain_torch(scale: float) -> None:
    from moe_impl.kernels.quantize_rows import quantize_rows

    x = hard_rows()
    found, plain = (one(x, torch.tensor(scale)) for one in (quantize_rows, nvfp4_rows.quantize_rows))
    assert found.shape == plain.shape == (12, 64) == (12, stored_row_bytes("nvfp4", H))
    assert torch.equal(found[:, :BYTES], plain[:, :BYTES])


def test_a_payload_row_holds_codes_then_scales() -> None:
    x, scale = normal(3, H).bfloat16(), torch.tensor(0.01)
    packed, scales = quantize(x, scale, "kernel")
    payload = nvfp4_rows.quantize_rows(x, scale)
    assert torch.equal(payload[:, :48], packed)
    assert torch.equal(payload[:, 48:54], scales.view(torch.uint8))
    assert torch.equal(nvfp4_rows.expand_rows(payload, H), decode_bf16(packed, scales))
    error = (nvfp4_rows.expand_rows(payload, H).float() * scale - x.float()).norm() / x.float().norm()
    assert 0.05 < error < 0.12, "four bits"


def test_every_e4m3_scale_and_every_e2m1_code_is_rounded_to_as_torch_rounds() -> None:
    """Under a tensor scale of 1 the largest value of a block chooses its scale: all of them, and around each tie."""
    from moe_impl.kernels.quantize_rows import quantize_rows

    finite = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    between = torch.cat((finite, (finite[:-1] + finite[1:]) / 2))
    amax = torch.cat([between * 6 * (1 + step * 2.0**-7) for step in (-1, 0, 1)])
    x = (amax[:, None] * torch.linspace(-1, 1, 16)).bfloat16().view(1, -1)
    used, packed = x.shape[1] * 9 // 16, x.shape[1] // 2
    found, plain = (one(x, torch.ones(()))[0, :used] for one in (quantize_rows, nvfp4_rows.quantize_rows))
    assert torch.equal(found, plain)
    assert set(range(127)) == set(plain[packed:].tolist())
    assert set(range(16)) == set(unpack(plain[:packed]).tolist())


@pytest.mark.parametrize("count", [0, 5, 12])
def test_rows_past_the_count_are_neither_read_nor_written(count: int) -> None:
    from moe_impl.kernels.quantize_rows import quantize_rows

    x, scale = normal(12, H).bfloat16(), torch.tensor(0.01)
    whole = quantize_rows(x, scale)
    x[count:] = torch.nan
    found = quantize_rows(x, scale, torch.tensor([count], dtype=torch.int32))
    assert torch.equal(found[:count, :BYTES], whole[:count, :BYTES])
    assert (found[count:] == 255).all(), "as they came"
    assert (found[:, BYTES:] == 255).all(), "what pads a row"


@pytest.mark.parametrize("layout", ["packed", "per_expert"])
def test_expanded_pairs_are_the_gathered_rows_decoded(layout: str) -> None:
    from moe_impl.kernels.expand_pairs import expand_pairs
    from moe_impl.layer import route_plain

    plan = route_plain(normal(9, 12), Router(), 3, None, 12, 3)
    pairs = rows.plan_pairs(plan, 4, layout)  # type: ignore[arg-type]
    payload = nvfp4_rows.quantize_rows(normal(plan.capacity, H, seed=1).bfloat16(), torch.tensor(0.01), plan.num_rows)
    found = expand_pairs(payload, pairs, H)
    plain = nvfp4_rows.expand_rows(rows.gather_pairs(payload, pairs), H)
    assert found.shape == plain.shape
    spans = list(zip(pairs.starts.tolist(), pairs.ends_L.tolist(), strict=True))
    assert sum(end - start for start, end in spans) == 9 * 3
    for start, end in spans:
        assert torch.equal(found[start:end], plain[start:end])


def test_pairs_that_are_their_rows_are_expanded_in_place_order() -> None:
    from moe_impl.kernels.expand_pairs import expand_pairs

    payload = nvfp4_rows.quantize_rows(hard_rows(), torch.tensor(0.01))
    found = expand_pairs(payload, Pairs(torch.tensor([12], dtype=torch.int32), None, None), H)
    plain = nvfp4_rows.expand_rows(payload, H)
    assert torch.equal(found.view(torch.int16), plain.view(torch.int16)), "the sign of 0, too"


@pytest.mark.parametrize("scaled", [False, True])
def test_h_is_quantized_from_its_fp32_value(scaled: bool) -> None:
    from moe_impl.kernels.silu_mul_quantize import silu_mul_quantize

    gate_up = 3 * normal(90, 2 * 48).bfloat16()
    ends, scale = torch.tensor([0, 30, 30, 71], dtype=torch.int32), torch.tensor(0.02)
    gate_up[71:] = torch.nan
    in_scale = normal(4, seed=1).abs() + 0.1 if scaled else None
    found = silu_mul_quantize(gate_up, ends, scale, in_scale)
    plain = nvfp4_rows.silu_mul_quantize(gate_up, ends, scale, torch.ones(4) if in_scale is None else in_scale)
    assert found.shape == (90, 48)
    # numpy's and torch's exp may differ in a last bit, which moves a value across a tie once in a million.
    assert torch.equal(found[:71], plain[:71])
    gate, up = (gate_up[:71].float() * (1 if in_scale is None else in_scale[[1] * 30 + [3] * 41, None])).chunk(2, -1)
    exact = torch.nn.functional.silu(gate.double()) * up.double()
    error = (found[:71].double() * scale.double() - exact).norm() / exact.norm()
    assert 0.05 < error < 0.12, "four bits"


def test_h_of_a_layout_with_room_for_every_expert() -> None:
    from moe_impl.kernels.silu_mul_quantize import silu_mul_quantize

    gate_up, scale = normal(60, 2 * 32).bfloat16(), torch.tensor(0.02)
    ends, in_scale = torch.tensor([3, 20, 57], dtype=torch.int32), torch.tensor([1.0, 2.0, 0.5])
    used = torch.cat((torch.arange(3), torch.arange(40, 57)))
    gate_up[[place for place in range(60) if place not in used.tolist()]] = torch.nan
    found = silu_mul_quantize(gate_up, ends, scale, in_scale, expert_stride=20)
    packed = nvfp4_rows.silu_mul_quantize(gate_up[used], torch.tensor([3, 3, 20]).int(), scale, in_scale)
    assert torch.equal(found[used], packed)


@pytest.mark.parametrize("stride", [None, 30])
def test_h_as_fp4_tensor_cores_read_it_decodes_to_h_expanded(stride: int | None) -> None:
    from moe_impl.kernels.silu_mul_quantize import silu_mul_quantize

    gate_up, scale = 3 * normal(60, 2 * 48).bfloat16(), torch.tensor(0.02)
    ends = torch.tensor([20, 51] if stride else [20, 41], dtype=torch.int32)
    used = torch.cat((torch.arange(20), torch.arange(30, 51))) if stride else torch.arange(41)
    codes, h = (silu_mul_quantize(gate_up, ends, scale, None, stride, expanded) for expanded in (False, True))
    assert codes.shape == (60, stored_row_bytes("nvfp4", 48))
    assert torch.equal(nvfp4_rows.expand_rows(codes[used], 48).view(torch.int16), h[used].view(torch.int16))
    past = torch.ones(60, dtype=torch.bool).index_fill(0, used, False)
    assert (codes[past] == 255).all(), "as they came"


def test_each_experts_outputs_get_its_scale_and_the_rest_stays() -> None:
    from moe_impl.kernels.scale_pairs import scale_pairs

    outputs = normal(20, 80).bfloat16()
    before, ends, scales = outputs.clone(), torch.tensor([4, 4, 15], dtype=torch.int32), torch.tensor([3.0, 9.0, 0.7])
    scale_pairs(outputs, ends, scales)
    expected = (before[:15].float() * scales[[0] * 4 + [2] * 11, None]).bfloat16()
    assert bf16_steps_apart(outputs[:15], expected) <= 1
    assert torch.equal(outputs[15:], before[15:])


def test_nothing_is_launched_for_no_rows() -> None:
    from moe_impl.kernels.expand_pairs import expand_pairs
    from moe_impl.kernels.quantize_rows import quantize_rows
    from moe_impl.kernels.scale_pairs import scale_pairs
    from moe_impl.kernels.silu_mul_quantize import silu_mul_quantize

    nothing, ends, scale = torch.zeros(0, H).bfloat16(), torch.zeros(3, dtype=torch.int32), torch.ones(())
    payload = quantize_rows(nothing, scale)
    assert payload.shape == (0, 64)
    assert expand_pairs(payload, Pairs(ends, ends[:0], None), H).shape == (0, H)
    assert silu_mul_quantize(nothing, ends, scale).shape == (0, H // 2)
    scale_pairs(nothing, ends, torch.ones(3))


def test_what_does_not_fit_is_refused() -> None:
    from moe_impl.kernels.expand_pairs import expand_pairs
    from moe_impl.kernels.quantize_rows import quantize_rows
    from moe_impl.kernels.silu_mul_quantize import silu_mul_quantize

    ends, one = torch.tensor([1], dtype=torch.int32), torch.ones(())
    with pytest.raises(ValueError, match="a multiple of 16 wide, got 40"):
        quantize_rows(torch.zeros(1, 40).bfloat16(), one)
    with pytest.raises(ValueError, match=r"one scale for all rows, got \(2,\)"):
        quantize_rows(torch.zeros(1, 32).bfloat16(), torch.ones(2))
    with pytest.raises(ValueError, match="rows of 96 values take 64 bytes, got 48"):
        expand_pairs(torch.zeros(1, 48, dtype=torch.uint8), Pairs(ends, None, None), 96)
    with pytest.raises(ValueError, match=r"I a multiple of 16, got \(1, 48\)"):
        silu_mul_quantize(torch.zeros(1, 48).bfloat16(), ends, one)
