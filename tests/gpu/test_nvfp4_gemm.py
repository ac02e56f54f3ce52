"""The NVFP4 grouped GEMM on a GPU: exact products, whatever the tile, whatever else is in the batch."""

import pytest
import torch

from moe_impl.nvfp4 import NvFp4Tensor, decode_bf16

pytestmark = pytest.mark.gpu

L, N, K = 5, 512, 1024
COUNTS = (0, 1, 300, 64, 131)


@pytest.fixture(scope="module")
def problem() -> tuple[torch.Tensor, NvFp4Tensor, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(3)
    weights = NvFp4Tensor.from_dense(torch.randn(L, N, K, generator=generator, device="cuda").bfloat16())
    x = torch.randn(sum(COUNTS) + 40, K, generator=generator, device="cuda").bfloat16()
    x[sum(COUNTS) :] = torch.nan  # past the last pair: never read
    return x, weights, torch.tensor(COUNTS, device="cuda").cumsum(0).int()


def test_products_are_exact_and_rows_past_the_end_are_not_read(
    problem: tuple[torch.Tensor, NvFp4Tensor, torch.Tensor],
) -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for

    x, weights, ends = problem
    out = nvfp4_grouped_gemm(x, repack(weights), ends, tile_for(100))
    start = 0
    for expert, end in enumerate(ends.tolist()):
        dense = decode_bf16(weights.packed[expert], weights.scales[expert]).double()
        exact = (x[start:end].double() @ dense.t()) * weights.global_scale[expert].double()
        # One rounding to bf16 (2^-9) and fp32 accumulation are all that may differ.
        error = (out[start:end].double() - exact).abs()
        assert not len(exact) or bool((error <= 2.0**-8 * exact.abs() + 1e-5 * exact.abs().max()).all()), expert
        start = end


def test_tile_size_changes_no_bit(problem: tuple[torch.Tensor, NvFp4Tensor, torch.Tensor]) -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for

    x, weights, ends = problem
    packed = repack(weights)
    tiles = [tile_for(load) for load in (2, 20, 50, 1000)]
    assert len(set(tiles)) == 4
    outs = [nvfp4_grouped_gemm(x, packed, ends, tile)[: ends[-1]] for tile in tiles]
    assert all(torch.equal(outs[0], other) for other in outs[1:])


def test_equals_the_bf16_grouped_matmul_on_decoded_weights(
    problem: tuple[torch.Tensor, NvFp4Tensor, torch.Tensor],
) -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for

    x, weights, ends = problem
    unscaled = NvFp4Tensor(weights.packed, weights.scales, torch.ones_like(weights.global_scale))
    ours = nvfp4_grouped_gemm(x, repack(unscaled), ends, tile_for(100))[: ends[-1]]
    dense = decode_bf16(weights.packed, weights.scales)
    theirs = torch._grouped_mm(x[: ends[-1]].contiguous(), dense.transpose(1, 2), offs=ends)
    relative = (ours.float() - theirs.float()).norm() / theirs.float().norm()
    assert relative < 1e-3, f"{relative:.2e}: both round exact products once"


@pytest.mark.parametrize("load", [2, 20, 50, 1000])
def test_no_step_overwrites_weights_that_a_tensor_core_still_reads(load: int) -> None:
    """A race shows as other bits or NaN, in one run of many: a long K, several programs an SM, the same rows anew."""
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for

    generator = torch.Generator("cuda").manual_seed(4)
    weights = repack(NvFp4Tensor.from_dense(torch.randn(2, 2048, 4096, generator=generator, device="cuda").bfloat16()))
    rows = torch.randn(2, 256, 4096, generator=generator, device="cuda").bfloat16()
    x, ends = rows.repeat(1, 4, 1).view(2048, 4096), torch.tensor([1024, 2048], device="cuda").int()
    for _ in range(5):
        found = nvfp4_grouped_gemm(x, weights, ends, tile_for(load)).view(2, 4, 256, 2048)
        assert not found.isnan().any()
        assert all(torch.equal(found[:, 0], found[:, again]) for again in range(1, 4))


def test_programs_that_take_several_tiles_change_no_bit(
    problem: tuple[torch.Tensor, NvFp4Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from moe_impl.kernels import nvfp4_grouped_gemm as module
    from moe_impl.kernels.nvfp4_fragments import repack

    x, weights, ends = problem
    packed = repack(weights)
    tiles = [module.tile_for(load) for load in (2, 1000)]
    expected = [module.nvfp4_grouped_gemm(x, packed, ends, tile)[: ends[-1]] for tile in tiles]
    monkeypatch.setattr(module, "sm_count", lambda tensor: 1)
    monkeypatch.setattr(module, "TILES_PER_SM", 5)
    found = [module.nvfp4_grouped_gemm(x, packed, ends, tile)[: ends[-1]] for tile in tiles]
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
