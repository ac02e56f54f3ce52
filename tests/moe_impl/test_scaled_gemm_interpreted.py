"""The FP4 grouped GEMM in Triton's interpreter: which rows, weights and scales meet, in every layout.

The interpreter reads e4m3 scales of ``tl.dot_scaled`` as powers of two, so in all tests but one the kernel expands both
operands, as it does on a GPU without FP4 tensor cores; what the compiler makes of it elsewhere, PTX tests say.
"""

import interpreted
import pytest
import torch
from decoded import unblocked
from interpreted import bf16_steps_apart
from torch import Tensor

from moe_impl.experts import nvfp4_rows
from moe_impl.nvfp4 import NvFp4Tensor, decode_bf16, pack
from moe_impl.payload import stored_row_bytes

pytestmark = [interpreted.WHERE, pytest.mark.usefixtures("uninitialised_memory_is_nan")]

COUNTS = (0, 1, 21, 0, 16)
ROWS, USED = sum(COUNTS) + 9, sum(COUNTS)


def tile(block_m: int):  # type: ignore[no-untyped-def]
    from moe_impl.kernels.nvfp4_scaled_gemm import ScaledTile

    return ScaledTile(block_m, block_k=256, num_warps=4, num_stages=1)


def drawn_weights(N: int, K: int) -> NvFp4Tensor:
    experts = len(COUNTS)
    weights = NvFp4Tensor.from_dense(torch.randn(experts, N, K, generator=torch.Generator().manual_seed(1)))
    return NvFp4Tensor(weights.packed, weights.scales, torch.tensor([1.0, 3.0, 0.5, 2.0, 7.0]) * 2.0**-6)


def drawn_rows(K: int, rows: int = ROWS, seed: int = 2) -> Tensor:
    """As they travel; those past the pairs that count are NaN scales and codes of 6."""
    x = torch.randn(rows, K, generator=torch.Generator().manual_seed(seed)).bfloat16()
    return nvfp4_rows.quantize_rows(x, torch.tensor(0.01))


def exact(rows: Tensor, weights: NvFp4Tensor, expert: int, K: int) -> Tensor:
    dense = decode_bf16(weights.packed[expert], weights.scales[expert]).double()
    return (nvfp4_rows.expand_rows(rows, K).double() @ dense.t()) * weights.global_scale[expert].double()


@pytest.mark.parametrize("block_m", [16, 32])
@pytest.mark.parametrize(("N", "K"), [(40, 64), (128, 128), (200, 192), (256, 512)])
def test_each_expert_multiplies_its_own_rows(N: int, K: int, block_m: int) -> None:
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm

    weights, rows = drawn_weights(N, K), drawn_rows(K)
    rows[USED:] = 0x7F
    ends = torch.tensor(COUNTS).cumsum(0).int()
    found = nvfp4_scaled_gemm(rows, blocked(weights), ends, tile(block_m))
    assert found.shape == (ROWS, N)
    start = 0
    for expert, end in enumerate(ends.tolist()):
        # One bf16 step, since the interpreter truncates, and fp32 accumulation.
        expected = exact(rows[start:end], weights, expert, K)
        torch.testing.assert_close(found[start:end].double(), expected, rtol=2**-7, atol=1e-5 * K)
        start = end


def test_the_emulated_kernel_gives_the_same_bits() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm

    weights, rows = drawn_weights(128, 128), drawn_rows(128, USED)
    ends = torch.tensor(COUNTS).cumsum(0).int()
    found = nvfp4_scaled_gemm(rows, blocked(weights), ends, tile(32))
    other = nvfp4_grouped_gemm(nvfp4_rows.expand_rows(rows, 128), repack(weights), ends, tile_for(8))
    error = (found.float() - other.float()).norm() / other.float().norm()
    assert error < 2**-8, "the same products, summed in another order"


def test_room_for_every_expert_changes_no_bit() -> None:
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm

    weights, rows, room = blocked(drawn_weights(128, 64)), drawn_rows(64, USED), 24
    ends = torch.tensor(COUNTS).cumsum(0).int()
    roomy = torch.full((len(COUNTS) * room, rows.shape[1]), 0x7F, dtype=torch.uint8)
    places = torch.cat([expert * room + torch.arange(count) for expert, count in enumerate(COUNTS)])
    roomy[places] = rows
    roomy_ends = torch.tensor([expert * room + count for expert, count in enumerate(COUNTS)]).int()
    found = nvfp4_scaled_gemm(roomy, weights, roomy_ends, tile(16), expert_stride=room)
    assert torch.equal(found[places], nvfp4_scaled_gemm(rows, weights, ends, tile(16)))


def test_rows_are_looked_up_for_each_pair() -> None:
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm

    weights, rows = blocked(drawn_weights(128, 64)), drawn_rows(64, 11)
    ends = torch.tensor(COUNTS).cumsum(0).int()
    row_P = torch.randint(0, 10, (ROWS,), dtype=torch.int32, generator=torch.Generator().manual_seed(5))
    gathered = nvfp4_scaled_gemm(rows[row_P.long()], weights, ends, tile(16))
    row_P[USED:] = 2**30
    rows[10:] = 0x7F
    found = nvfp4_scaled_gemm(rows, weights, ends, tile(16), row_P=row_P)
    assert found.shape == (ROWS, 128)
    assert torch.equal(found[:USED], gathered[:USED])


def test_leaving_sms_free_changes_no_bit() -> None:
    from moe_impl.carve_out import leaving_free
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm

    weights, rows = blocked(drawn_weights(256, 64)), drawn_rows(64, USED)
    ends = torch.tensor(COUNTS).cumsum(0).int()
    whole = nvfp4_scaled_gemm(rows, weights, ends, tile(16))
    with leaving_free(2):
        assert torch.equal(nvfp4_scaled_gemm(rows, weights, ends, tile(16)), whole)
    with leaving_free(4), pytest.raises(ValueError, match="4 of 4 SMs are to be left free"):
        nvfp4_scaled_gemm(rows, weights, ends, tile(16))


def test_every_code_meets_every_scale() -> None:
    """Row b is ones in block b, so outputs are the sums of weight blocks: all 16 codes under all 127 finite scales."""
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm

    K, N = 64, 32
    codes = torch.arange(16, dtype=torch.uint8).repeat(N * K // 16).view(1, N, K)
    codes[..., 8:] &= 7  # else a block's sum is 0
    scales = torch.arange(N * K // 16, dtype=torch.uint8).clamp(max=126).view(torch.float8_e4m3fn).view(1, N, K // 16)
    weights = NvFp4Tensor(pack(codes), scales, torch.ones(1))
    ones = torch.zeros(4, stored_row_bytes("nvfp4", K), dtype=torch.uint8)
    for block in range(4):  # row b: ones in block b alone
        ones[block, 8 * block : 8 * block + 8] = 0x22
    ones[:, K // 2 : K // 2 + K // 16] = 0x38
    ends = torch.tensor([4], dtype=torch.int32)
    found = nvfp4_scaled_gemm(ones, blocked(weights), ends, tile(16))
    sums = decode_bf16(weights.packed[0], weights.scales[0]).double().view(N, K // 16, 16).sum(-1)
    assert len(scales.float().unique()) == 127
    assert bf16_steps_apart(found, sums.t().bfloat16().contiguous()) <= 1


def test_dot_scaled_gets_each_operand_with_its_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of GPUs with FP4 tensor cores. The interpreter reads scale bits b as 2 ** (b - 127), as this does."""
    from triton.runtime.interpreter import InterpreterBuilder

    from moe_impl.kernels import nvfp4_scaled_gemm as kernel

    if not hasattr(InterpreterBuilder, "create_dot_scaled"):
        pytest.skip("this triton's interpreter has no dot_scaled")
    monkeypatch.setattr(kernel, "has_fp4", lambda capability: True)
    N, K, draw = 200, 192, torch.Generator().manual_seed(4)
    codes = torch.randint(0, 256, (len(COUNTS) * N + USED, K // 2), generator=draw, dtype=torch.uint8)
    bits = torch.randint(118, 127, (len(COUNTS) * N + USED, K // 16), generator=draw, dtype=torch.uint8)
    ones = torch.full((len(codes), K // 16), 1.0).to(torch.float8_e4m3fn)
    exponents = (bits.double() - 127).repeat_interleave(16, 1)
    values = decode_bf16(codes, ones).double() * torch.exp2(exponents)
    weights = NvFp4Tensor(
        codes[USED:].view(len(COUNTS), N, -1),
        bits[USED:].view(torch.float8_e4m3fn).view(len(COUNTS), N, -1),
        torch.ones(len(COUNTS)),
    )
    rows = torch.cat((codes[:USED], bits[:USED]), 1)
    rows = torch.nn.functional.pad(rows, (0, stored_row_bytes("nvfp4", K) - rows.shape[1]))
    found = kernel.nvfp4_scaled_gemm(rows, kernel.blocked(weights), torch.tensor(COUNTS).cumsum(0).int(), tile(32))
    expert = torch.arange(len(COUNTS)).repeat_interleave(torch.tensor(COUNTS))
    expected = torch.einsum("pk,pnk->pn", values[:USED], values[USED:].view(len(COUNTS), N, K)[expert])
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-3)


def test_scales_lie_in_the_blocked_layout_and_codes_as_they_came() -> None:
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked

    weights = drawn_weights(200, 192)
    made = blocked(weights)
    assert made.codes is weights.packed
    assert made.scales.shape == (5, 256 * 12)
    assert torch.equal(unblocked(made.scales, 200, 12), weights.scales.view(torch.uint8))


def test_wrong_shapes_are_refused() -> None:
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm

    with pytest.raises(ValueError, match="K must be a multiple of 64, got 96"):
        blocked(NvFp4Tensor.from_dense(torch.ones(1, 16, 96)))
    weights = blocked(NvFp4Tensor.from_dense(torch.ones(1, 16, 64)))
    with pytest.raises(ValueError, match="rows of 64 values take 48 bytes, got 80"):
        nvfp4_scaled_gemm(torch.zeros(4, 80, dtype=torch.uint8), weights, torch.tensor([4]).int(), tile(16))
    nothing = torch.zeros(0, 48, dtype=torch.uint8)
    assert nvfp4_scaled_gemm(nothing, weights, torch.tensor([0]).int(), tile(16)).shape == (0, 16)


def test_a_tile_is_as_narrow_as_holds_an_experts_rows() -> None:
    from moe_impl.kernels.nvfp4_scaled_gemm import scaled_tile_for

    assert [scaled_tile_for(pairs).block_m for pairs in (1, 32, 33, 64, 65, 1000)] == [32, 32, 64, 64, 128, 128]
