"""Worst-case buffers on a GPU: both layouts give the same bits, room costs the memory that ``bench plan`` says."""

from dataclasses import replace

import pytest
import torch
from no_wait import no_wait
from small_target import SLOW, ignore, small_target

from bench.correctness import TOLERANCE, errors
from moe_impl import costs, rows
from moe_impl.links import LOCAL
from moe_impl.nvfp4 import NvFp4Tensor
from moe_impl.options import Link, Precision, SplitPolicy, Variant
from moe_impl.shapes import ModelShape, Router

pytestmark = pytest.mark.gpu

MODEL = ModelShape(2048, 1024, 128, 8, Router("sigmoid", True, 8, 4, True, 2.5))
"""16 experts a rank, 8 a token: twice as many pairs in layout ``per_expert``."""
PACKED = Variant("triton")
APART = replace(PACKED, worst_case_layout="per_expert")


@pytest.mark.parametrize("link", [LOCAL, SLOW], ids=lambda link: link.name)
@pytest.mark.parametrize("precision", ["nvfp4-w4a16", "nvfp4"])
def test_both_layouts_and_any_room_give_the_bits_of_the_unsplit_run(precision: Precision, link: Link) -> None:
    target = small_target(precision, link, 515, MODEL)
    expected = target.run(PACKED.unsplit(), ignore)()
    for variant in (APART, replace(APART, max_tokens_per_rank=1024), replace(PACKED, max_tokens_per_rank=1024)):
        for run_as in (variant.unsplit(), variant.split_serial(), variant, replace(variant, engine="threads")):
            target.poison(run_as)
            run = target.run(run_as, ignore)
            final, traces = run.traced()
            assert torch.equal(final, expected), run_as.label
            assert all(torch.equal(run(), expected) for _ in range(5)), run_as.label
    for layer, trace in enumerate(traces):
        assert errors(trace.y_TH, target.oracle(layer, trace)).within(TOLERANCE[precision])


def test_micro_batches_without_tokens_have_room_and_change_nothing() -> None:
    for tokens, split in ((67, SplitPolicy("ratio", 0.001)), (67, SplitPolicy("ratio", 0.999)), (1, SplitPolicy())):
        target = small_target("nvfp4-w4a16", LOCAL, tokens, MODEL)
        expected = target.run(PACKED.unsplit(), ignore)()
        roomy = replace(APART, split=split, max_tokens_per_rank=128)
        target.poison(roomy)
        assert torch.equal(target.run(roomy, ignore)(), expected)


def test_issuing_never_waits_for_the_counts() -> None:
    run = small_target("nvfp4-w4a16", LOCAL, 512, MODEL).run(replace(APART, max_tokens_per_rank=1024), ignore)
    run()
    with no_wait():
        run()


def test_activations_are_as_large_as_the_plan_says() -> None:
    """Room for the largest batch, and for all rows at each expert, each double it; a split in 2 halves it."""
    target = small_target("nvfp4-w4a16", LOCAL, 2048, MODEL)
    grown = {}
    for asked in (PACKED, APART, replace(PACKED, max_tokens_per_rank=4096), replace(APART, max_tokens_per_rank=4096)):
        for variant in (asked.unsplit(), asked):
            run = target.run(variant, ignore)
            run()
            _, memory = target.watching_memory(run)
            assert memory is not None
            planned = costs.buffer_bytes(target.workload, variant)
            assert memory.activations_bytes == pytest.approx(planned, rel=0.25), variant.label
            grown[variant] = memory.activations_bytes
    base = grown[PACKED.unsplit()]
    assert grown[APART.unsplit()] == pytest.approx(2 * base, rel=0.25)
    assert grown[replace(PACKED, max_tokens_per_rank=4096).unsplit()] == pytest.approx(2 * base, rel=0.25)
    assert grown[replace(APART, max_tokens_per_rank=4096)] == pytest.approx(2 * base, rel=0.25)


def test_pairs_are_placed_and_gathered_as_plain_torch_does_at_deepseeks_size() -> None:
    from moe_impl.kernels.gather_pairs import gather_pairs
    from moe_impl.kernels.sort_pairs import sort_pairs

    tokens, width, experts, top_k, ranks = 257, 7168, 256, 8, 8
    generator = torch.Generator().manual_seed(5)
    ids = torch.rand(tokens, experts, generator=generator).argsort(1)[:, :top_k].sort(1).values.int()
    plan, on_gpu = (
        rows.plan_rows(chosen, torch.ones(tokens, top_k, device=chosen.device), experts, ranks, ranks * 300)
        for chosen in (ids, ids.cuda())
    )
    plain, found = (rows.plan_pairs(plan, 32, "per_expert"), sort_pairs(on_gpu, 32, "per_expert"))
    used = int(plan.num_rows)
    assert torch.equal(plain.ends_L, found.ends_L.cpu())
    assert torch.equal(plain.pair_MK[:used], found.pair_MK[:used].cpu())
    received = torch.randn(plan.capacity, width, generator=generator).bfloat16()
    gathered = gather_pairs(received.cuda(), found)
    assert gathered.shape == (32 * ranks * 300, width)
    for start, end in zip(plain.starts.tolist(), plain.ends_L.tolist(), strict=True):
        assert torch.equal(plain.row_P[start:end], found.row_P[start:end].cpu())
        assert torch.equal(received[plain.row_P[start:end].long()], gathered[start:end].cpu())


def test_an_experts_room_may_begin_past_two_billion_elements() -> None:
    """8 experts x 80000 places x 4096 values are 2.6e9, more than an int32 counts: 5 GB, of which 800 rows are used."""
    from moe_impl.kernels.gather_pairs import gather_pairs
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for
    from moe_impl.kernels.silu_mul import silu_mul

    experts, room, count = 8, 80000, 100
    generator = torch.Generator("cuda").manual_seed(1)
    drawn = torch.randn(experts, 4096, 128, generator=generator, device="cuda")
    weights = repack(NvFp4Tensor.from_dense(drawn))
    received = torch.randn(experts * count, 128, generator=generator, device="cuda").bfloat16()
    first_L = torch.arange(experts, dtype=torch.int32, device="cuda") * room
    row_P = torch.full((experts * room,), 2**30, dtype=torch.int32, device="cuda")
    places = (first_L[:, None] + torch.arange(count, device="cuda")).flatten().long()
    row_P[places] = torch.arange(experts * count, dtype=torch.int32, device="cuda")
    apart = rows.Pairs(first_L + count, row_P, None, room)
    packed_L = count * torch.arange(1, experts + 1, dtype=torch.int32, device="cuda")

    gathered = gather_pairs(received, apart)
    assert torch.equal(gathered[places], received)
    gate_up = nvfp4_grouped_gemm(gathered, weights, apart.ends_L, tile_for(count), room)
    expected = nvfp4_grouped_gemm(received, weights, packed_L, tile_for(count))
    assert gate_up.numel() > 2**31
    assert torch.equal(gate_up[places], expected)
    h = silu_mul(gate_up, apart.ends_L, expert_stride=room)
    assert torch.equal(h[places], silu_mul(expected, packed_L))
