"""Row kernels on a GPU against plain torch on the CPU: the same bits."""

import pytest
import torch

from moe_impl import rows
from moe_impl.experts.permute import gather
from moe_impl.layer import row_ops
from moe_impl.options import WorstCaseLayout
from moe_impl.routing import select_experts
from moe_impl.shapes import PRESETS

pytestmark = pytest.mark.gpu

T, H, E, K, R = 257, 7168, 256, 8, 8


@pytest.fixture(scope="module")
def routed() -> tuple[rows.SentRows, rows.SentRows]:
    """The same rows laid out on both devices."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(T, E, generator=generator)
    bias = 0.01 * torch.randn(E, generator=generator)
    router = PRESETS["deepseek-v3"].router
    ids, weights = select_experts(logits, router, K, bias)
    ids_gpu, weights_gpu = select_experts(logits.cuda(), router, K, bias.cuda())
    assert torch.equal(ids, ids_gpu.cpu())
    torch.testing.assert_close(weights, weights_gpu.cpu(), rtol=1e-6, atol=0)
    return rows.plan_rows(ids, weights, E, R), rows.plan_rows(ids.cuda(), weights.cuda(), E, R)


def test_rows_are_laid_out_alike_on_both_devices(routed: tuple[rows.SentRows, rows.SentRows]) -> None:
    cpu, gpu = routed
    used = int(cpu.num_rows)
    assert used == int(gpu.num_rows)
    assert torch.equal(cpu.row_TR, gpu.row_TR.cpu())
    for name in ("token_M", "experts_MK", "weights_MK"):
        assert torch.equal(getattr(cpu, name)[:used], getattr(gpu, name)[:used].cpu())


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("ranks", [8, 16, 32])
def test_the_routing_kernel_routes_every_model_and_counts_nodes_as_plain_torch_does(name: str, ranks: int) -> None:
    from moe_impl.kernels.route_tokens import route_tokens

    model = PRESETS[name]
    if model.num_experts % ranks:
        pytest.skip(f"{model.num_experts} experts on {ranks} ranks")
    generator = torch.Generator("cuda").manual_seed(7)
    logits = torch.randn(1003, model.num_experts, generator=generator, device="cuda")
    bias = None
    if model.router.selection_bias:
        bias = 0.001 * torch.randn(model.num_experts, generator=generator, device="cuda")
    arguments = (model.num_experts, ranks)
    plain = rows.plan_rows(*select_experts(logits, model.router, model.top_k, bias), *arguments)
    fused = route_tokens(logits, model.router, model.top_k, bias, *arguments)
    assert int(plain.num_rows) == int(fused.num_rows)
    assert int(plain.num_node_rows) == int(fused.num_node_rows)
    assert torch.equal(plain.row_TR, fused.row_TR)


def test_the_routing_kernel_lays_rows_out_as_plain_torch_does() -> None:
    from moe_impl.kernels.route_tokens import route_tokens

    generator = torch.Generator("cuda").manual_seed(6)
    logits = torch.randn(1003, E, generator=generator, device="cuda")
    bias = 0.01 * torch.randn(E, generator=generator, device="cuda")
    router = PRESETS["deepseek-v3"].router
    plain = rows.plan_rows(*select_experts(logits, router, K, bias), E, R)
    fused = route_tokens(logits, router, K, bias, E, R)
    used = int(plain.num_rows)
    assert used == int(fused.num_rows)
    assert torch.equal(plain.row_TR, fused.row_TR)
    assert torch.equal(plain.token_M[:used], fused.token_M[:used])
    assert torch.equal(plain.experts_MK[:used], fused.experts_MK[:used])
    here = plain.experts_MK[:used] >= 0
    torch.testing.assert_close(plain.weights_MK[:used][here], fused.weights_MK[:used][here], rtol=1e-6, atol=0)


@pytest.mark.parametrize("layout", ["packed", "per_expert"])
def test_programs_sort_several_chunks_of_slots_each(layout: WorstCaseLayout) -> None:
    from moe_impl.kernels.sort_pairs import MOST_COUNTS, SLOTS, sort_pairs

    logits = torch.randn(4096, E, generator=torch.Generator("cuda").manual_seed(8), device="cuda")
    plan = rows.plan_rows(*select_experts(logits, PRESETS["deepseek-v3"].router.even(), K, None), E, R)
    plain, found = rows.plan_pairs(plan, E // R, layout), sort_pairs(plan, E // R, layout)
    used, programs = int(plan.num_rows), MOST_COUNTS // (E // R)
    assert used * K > 2 * programs * SLOTS
    assert torch.equal(plain.ends_L, found.ends_L)
    assert torch.equal(plain.pair_MK[:used], found.pair_MK[:used])
    for start, end in zip(plain.starts.tolist(), plain.ends_L.tolist(), strict=True):
        assert torch.equal(plain.row_P[start:end], found.row_P[start:end])


def test_every_row_stage_gives_the_cpu_bits(routed: tuple[rows.SentRows, rows.SentRows]) -> None:
    cpu, gpu = routed
    used = int(cpu.num_rows)
    ops = row_ops(torch.device("cuda"))
    plain = row_ops(torch.device("cpu"))
    pairs, pairs_gpu = plain.sort_pairs(cpu, E // R), ops.sort_pairs(gpu, E // R)
    total = int(pairs.ends_L[-1])
    assert total == T * K
    assert torch.equal(pairs.ends_L, pairs_gpu.ends_L.cpu())
    assert torch.equal(pairs.row_P[:total], pairs_gpu.row_P[:total].cpu())
    assert torch.equal(pairs.pair_MK[:used], pairs_gpu.pair_MK[:used].cpu())

    received = torch.randn(cpu.capacity, H).bfloat16()
    permuted_gpu = gather(received.cuda(), pairs_gpu)
    assert torch.equal(gather(received, pairs)[:total], permuted_gpu[:total].cpu())

    outputs = torch.randn(pairs.row_P.shape[0], H).bfloat16()
    partial, partial_gpu = received.clone(), received.cuda()
    plain.reduce_rows(outputs, pairs, cpu, partial)
    ops.reduce_rows(outputs.cuda(), pairs_gpu, gpu, partial_gpu)
    assert torch.equal(partial[:used], partial_gpu[:used].cpu())
    assert torch.equal(received[used:], partial_gpu[used:].cpu()), "rows past the count must stay untouched"

    x = torch.randn(T, H).bfloat16()
    y, following = plain.merge_rows(x, partial, cpu)
    y_gpu, following_gpu = ops.merge_rows(x.cuda(), partial_gpu, gpu)
    assert torch.equal(y, y_gpu.cpu())
    difference = (following.float() - following_gpu.cpu().float()).abs()
    assert (difference > 0).float().mean() < 1e-3, "only rms may round differently"
