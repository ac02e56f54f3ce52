"""The NVFP4 grouped GEMM in Triton's interpreter: exact products, whatever the tile, and nothing read past the end."""

import interpreted
import pytest
import torch
from interpreted import bf16_steps_apart

from moe_impl.nvfp4 import NvFp4Tensor, decode_bf16, pack

pytestmark = [interpreted.WHERE, pytest.mark.usefixtures("uninitialised_memory_is_nan")]

TILES = [(16, 64), (64, 128)]
"""(block_m, block_n): x copied row by row, and by TMA. Small: the interpreter takes them one by one."""
COUNTS = (0, 1, 37, 0, 16)


def tile(block_m: int, block_n: int):  # type: ignore[no-untyped-def]
    from moe_impl.kernels.nvfp4_grouped_gemm import Tile

    return Tile(block_m, block_n, 128, num_warps=4, num_stages=1)


def drawn_weights(experts: int, N: int, K: int) -> NvFp4Tensor:
    weights = NvFp4Tensor.from_dense(torch.randn(experts, N, K, generator=torch.Generator().manual_seed(1)))
    return NvFp4Tensor(weights.packed, weights.scales, weights.global_scale * torch.tensor([1.0, 3.0, 0.5, 2.0, 7.0]))


@pytest.mark.parametrize(("block_m", "block_n"), TILES)
@pytest.mark.parametrize("K", [64, 192, 256])
def test_each_expert_multiplies_its_own_rows(K: int, block_m: int, block_n: int) -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm

    weights, N = drawn_weights(len(COUNTS), 140, K), 140  # no multiple of block_n: the last columns are masked
    x = torch.randn(sum(COUNTS) + 9, K, generator=torch.Generator().manual_seed(2)).bfloat16()
    x[sum(COUNTS) :] = torch.nan
    ends = torch.tensor(COUNTS).cumsum(0).int()
    packed = repack(weights)
    found = nvfp4_grouped_gemm(x, packed, ends, tile(block_m, block_n))
    assert found.shape == (sum(COUNTS) + 9, N)
    start = 0
    for expert, end in enumerate(ends.tolist()):
        dense = decode_bf16(weights.packed[expert], weights.scales[expert]).double()
        exact = (x[start:end].double() @ dense.t()) * weights.global_scale[expert].double()
        # One bf16 step, since the interpreter truncates, and fp32 accumulation.
        torch.testing.assert_close(found[start:end].double(), exact, rtol=2**-7, atol=1e-5 * K)
        start = end


def test_tile_size_changes_no_bit() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm

    packed = repack(drawn_weights(len(COUNTS), 48, 128))
    x = torch.randn(sum(COUNTS), 128, generator=torch.Generator().manual_seed(3)).bfloat16()
    ends = torch.tensor(COUNTS).cumsum(0).int()
    one, other = (nvfp4_grouped_gemm(x, packed, ends, tile(*blocks)) for blocks in TILES)
    assert bf16_steps_apart(one, other) <= 1, "numpy's matmul may add in another order for another shape"


@pytest.mark.parametrize("blocks", TILES)
def test_programs_take_several_tiles_where_the_worst_case_has_too_many(
    blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from moe_impl.kernels import nvfp4_grouped_gemm as module
    from moe_impl.kernels.nvfp4_fragments import repack

    packed = repack(drawn_weights(len(COUNTS), 140, 64))
    x = torch.randn(sum(COUNTS), 64, generator=torch.Generator().manual_seed(4)).bfloat16()
    ends = torch.tensor(COUNTS).cumsum(0).int()
    one_each = module.nvfp4_grouped_gemm(x, packed, ends, tile(*blocks))
    monkeypatch.setattr(module, "TILES_PER_SM", 1)  # 4 programs in all
    assert torch.equal(module.nvfp4_grouped_gemm(x, packed, ends, tile(*blocks)), one_each)
    assert not one_each.isnan().any()


@pytest.mark.parametrize("K", [64, 128])
def test_every_code_is_expanded_exactly_under_every_scale(K: int) -> None:
    """x is the identity: the output is the weights, for all 16 codes times all 127 finite non-negative e4m3 scales."""
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm

    N = 128 * 16 // K
    codes = torch.arange(16, dtype=torch.uint8).repeat(N * K // 16).view(1, N, K)
    scales = torch.arange(128, dtype=torch.uint8).clamp(max=126).view(torch.float8_e4m3fn).view(1, N, K // 16)
    weights = NvFp4Tensor(pack(codes), scales, torch.ones(1))
    ends = torch.tensor([K], dtype=torch.int32)
    found = nvfp4_grouped_gemm(torch.eye(K).bfloat16(), repack(weights), ends, tile(32, 64))
    assert len(scales.float().unique()) == 127
    assert torch.equal(found.t(), decode_bf16(weights.packed[0], weights.scales[0]))


def test_the_tensor_scale_is_applied_outside_the_16_bit_operand() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm

    weights = drawn_weights(5, 16, 64)
    scale = torch.full((5,), 1 + 2.0**-7)  # needs 8 bits: folded into a weight it would be rounded away
    exact = NvFp4Tensor(weights.packed, weights.scales, scale)
    ends = torch.full((5,), 64, dtype=torch.int32)
    found = nvfp4_grouped_gemm(torch.eye(64).bfloat16(), repack(exact), ends, tile(16, 64))
    expected = decode_bf16(weights.packed[0], weights.scales[0]).float() * scale[0]
    assert bf16_steps_apart(found.t().contiguous(), expected.bfloat16()) <= 1
    assert not torch.equal(found.t(), decode_bf16(weights.packed[0], weights.scales[0]))


def test_wrong_shapes_are_refused() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm

    packed = repack(NvFp4Tensor.from_dense(torch.ones(1, 16, 64)))
    with pytest.raises(ValueError, match="x has 128 columns, the weights 64"):
        nvfp4_grouped_gemm(torch.zeros(4, 128).bfloat16(), packed, torch.tensor([4]).int(), tile(16, 64))


def test_a_wider_tile_is_chosen_for_more_pairs() -> None:
    from moe_impl.kernels.nvfp4_grouped_gemm import tile_for

    loads = (0.5, 10, 11, 40, 41, 72, 73, 1000)
    assert [tile_for(pairs).block_m for pairs in loads] == [16, 16, 32, 32, 64, 64, 128, 128]


@pytest.mark.parametrize(("K", "block_k"), [(64, 64), (128, 128), (192, 64), (256, 256), (384, 128)])
def test_a_step_is_as_wide_as_k_allows(K: int, block_k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from moe_impl.kernels import nvfp4_grouped_gemm as module
    from moe_impl.kernels.nvfp4_fragments import repack

    shapes = []
    made = module.TensorDescriptor.from_tensor
    monkeypatch.setattr(
        module.TensorDescriptor, "from_tensor", lambda tensor, shape: shapes.append(shape) or made(tensor, shape)
    )
    weights = repack(NvFp4Tensor.from_dense(torch.ones(1, 16, K)))
    found = module.nvfp4_grouped_gemm(
        torch.ones(3, K).bfloat16(), weights, torch.tensor([3]).int(), module.Tile(64, 64, 256, 4, 1)
    )
    assert shapes == [[64, block_k]]
    assert torch.equal(found, torch.full((3, 16), float(K)).bfloat16())
