"""Worst-case buffers: room for a server's largest batch, and a layout in which each expert has room for all rows.

Neither changes a bit of the answer. Uninitialised memory is NaN here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import interpreted
import pytest
import torch
from drawn import normal
from small_layer import ROUTER, Built, workload
from torch import Tensor

from bench import correctness
from moe_impl import layer
from moe_impl.experts.torch_backend import silu_mul_plain
from moe_impl.nvfp4 import NvFp4Tensor
from moe_impl.options import Engine, Precision, Receive, SplitName, SplitPolicy, Variant, WorstCaseLayout
from moe_impl.shapes import Router
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import VariantRun

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

COUNTS = (0, 3, 37, 0, 16)
ROOM = 40
EMPTY_FIRST = SplitPolicy("ratio", 0.04)


def buffers(run: VariantRun) -> list[dict[str, int]]:
    """Capacities of each micro-batch in the first layer: rows received and returned, pairs."""
    found: list[dict[str, int]] = []
    reduce = run._stages.bodies[Stage.REDUCE]

    def measuring(state: UbatchState, layer: int) -> None:
        assert state.outputs_PH is not None
        pairs = len(state.outputs_PH)
        reduce(state, layer)
        assert state.partial_MH is not None
        assert state.returned_MH is not None
        if layer == 0:
            rows = {"received": len(state.partial_MH), "returned": len(state.returned_MH)}
            found.append(rows | {"tokens": state.tokens.stop - state.tokens.start, "pairs": pairs})

    run._run({**run._stages.bodies, Stage.REDUCE: measuring}, None)
    return found


@pytest.mark.parametrize("engine", get_args(Engine))
@pytest.mark.parametrize(
    ("split_factor", "split", "sizes"),
    [
        (1, SplitPolicy(), [21]),
        (2, SplitPolicy(), [11, 10]),
        (2, SplitPolicy("ratio", 0.9), [19, 2]),
        (2, SplitPolicy("ratio", 0.02), [0, 21]),
        (4, SplitPolicy("balanced"), None),
        (2, SplitPolicy(min_tokens=22), [21]),
    ],
    ids=str,
)
def test_room_for_a_larger_batch_changes_the_buffers_and_no_bit(
    split_factor: int, split: SplitPolicy, sizes: list[int] | None, engine: Engine
) -> None:
    """``max_tokens_per_rank`` 40 of 4 ranks; 2 local experts, 3 a token: at most 2 pairs a row."""
    built = Built(workload())
    fits = Variant("torch", engine=engine, split_factor=split_factor, split=split)
    run = built.run(replace(fits, max_tokens_per_rank=40))
    found = buffers(run)
    room = {1: 40, 2: 20, 4: 10}[split_factor]
    if split.policy == "ratio":
        room = max(round(split.ratio * 40), 40 - round(split.ratio * 40))
    if split.min_tokens:
        room = 40
    assert sizes is None or [one["tokens"] for one in found] == sizes
    assert {(one["received"], one["returned"], one["pairs"]) for one in found} == {(4 * room, 4 * room, 8 * room)}
    own = [(one["received"], 4 * one["tokens"]) for one in buffers(built.run(fits))]
    assert all(received == sent for received, sent in own), "without it each micro-batch has its own room"
    final, traces = run.traced()
    assert torch.equal(final, built.run(fits)())
    assert all(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(traces))


def test_a_balanced_cut_above_its_even_share_gets_the_room_it_needs() -> None:
    built = Built(workload(tokens=20, router=Router()))
    built.inputs.logits_LTE[:] = torch.tensor([9.0, 8, 7, 0, 0, 0, 0, 0])
    built.inputs.logits_LTE[:, :8] = torch.tensor([9.0, 0, 8, 0, 7, 0, 0, 0])
    run = built.run(Variant("torch", split=SplitPolicy("balanced"), max_tokens_per_rank=20))
    assert [(one["tokens"], one["received"]) for one in buffers(run)] == [(8, 4 * 12), (12, 4 * 12)]
    assert all(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(run.traced()[1]))


def test_exact_buffers_fit_what_came_whatever_the_largest_batch() -> None:
    built = Built(workload())
    exact = Variant("torch", receive="exact")
    run = built.run(replace(exact, max_tokens_per_rank=40))
    assert buffers(run) == buffers(built.run(exact))
    assert torch.equal(run(), built.run(Variant("torch"))())


def spans(ends_L: Tensor, expert_stride: int | None) -> list[slice]:
    """Where each expert's pairs lie."""
    packed = [0, *ends_L.tolist()[:-1]]
    starts = packed if expert_stride is None else [expert * expert_stride for expert in range(len(ends_L))]
    return [slice(start, end) for start, end in zip(starts, ends_L.tolist(), strict=True)]


def spread(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Packed ends of COUNTS, ends of ``per_expert``, and the rows where these are, NaN between."""
    packed = torch.tensor(COUNTS).cumsum(0).int()
    apart = torch.arange(len(COUNTS)).int() * ROOM + torch.tensor(COUNTS).int()
    room = torch.full((len(COUNTS) * ROOM, values.shape[1]), torch.nan).to(values.dtype)
    for here, there in zip(spans(packed, None), spans(apart, ROOM), strict=True):
        room[there] = values[here]
    return packed, apart, room


@interpreted.WHERE
def test_silu_mul_gives_the_packed_bits_where_each_expert_has_its_room() -> None:
    from moe_impl.kernels.silu_mul import silu_mul

    gate_up = normal(sum(COUNTS), 2 * 48).bfloat16()
    scales = (normal(5, seed=1).abs() + 0.1, normal(5, seed=2).abs() + 0.1)
    packed, apart, roomy = spread(gate_up)
    for by in (None, scales):
        expected, found = silu_mul(gate_up, packed, by), silu_mul(roomy, apart, by, ROOM)
        assert found.shape == (5 * ROOM, 48)
        for here, there in zip(spans(packed, None), spans(apart, ROOM), strict=True):
            assert torch.equal(found[there], expected[here])
        untouched = torch.ones(len(found), dtype=torch.bool)
        for there in spans(apart, ROOM):
            untouched[there] = False
        assert found[untouched].isnan().all(), "nothing is written past an expert's end"
    assert interpreted.bf16_steps_apart(expected, silu_mul_plain(gate_up, packed, scales)) <= 1


@interpreted.WHERE
@pytest.mark.parametrize("block_m", [16, 32])
def test_the_gemm_gives_the_packed_bits_where_each_expert_has_its_room(block_m: int) -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import Tile, nvfp4_grouped_gemm

    weights = repack(NvFp4Tensor.from_dense(normal(5, 48, 128, seed=3)))
    x, tile = normal(sum(COUNTS), 128, seed=4).bfloat16(), Tile(block_m, 64, 64, num_warps=4, num_stages=1)
    packed, apart, roomy = spread(x)
    expected = nvfp4_grouped_gemm(x, weights, packed, tile)
    found = nvfp4_grouped_gemm(roomy, weights, apart, tile, ROOM)
    assert found.shape == (5 * ROOM, 48)
    for here, there in zip(spans(packed, None), spans(apart, ROOM), strict=True):
        assert torch.equal(found[there], expected[here])
    assert int(found.isnan().sum()) == 48 * (5 * ROOM - sum(COUNTS)), "nothing is written past an expert's end"


@pytest.fixture
def triton_layer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Built]:
    """A layer of the GPU's kernels, interpreted."""
    from moe_impl.experts.base import backend
    from moe_impl.transport.cuda_rows import LocalCuda

    monkeypatch.setattr(layer, "row_ops", lambda device, of=layer.row_ops: of(torch.device("cuda")))

    def build(
        tokens: int, router: Router = ROUTER, shared_experts: int = 0, precision: Precision = "nvfp4-w4a16"
    ) -> Built:
        work = workload(precision, tokens, router, shared_experts)
        return Built(work, experts=backend("triton", precision, 1.5), over=LocalCuda())

    return build


@interpreted.WHERE
@pytest.mark.parametrize(("precision", "shared_experts"), [("nvfp4-w4a16", 0), ("nvfp4-w4a16", 1), ("nvfp4", 0)])
def test_a_layer_gives_the_same_bits_in_both_layouts_split_or_not(
    precision: Precision, shared_experts: int, triton_layer: Callable[..., Built]
) -> None:
    built = triton_layer(tokens=3, shared_experts=shared_experts, precision=precision)
    apart = Variant("triton", worst_case_layout="per_expert")
    final, traces = built.run(apart).traced()
    tolerance = max(2e-2, correctness.TOLERANCE[precision])  # the interpreter truncates to bf16
    assert all(error.within(tolerance) for error in built.errors(traces))
    others = [Variant("triton").unsplit(), replace(apart, split=EMPTY_FIRST, max_tokens_per_rank=12)]
    if precision == "nvfp4-w4a16" and not shared_experts:
        others += [apart.unsplit(), apart.split_serial()]
    for variant in others:
        assert torch.equal(built.run(variant)(), final), variant.label


@interpreted.WHERE
def test_each_expert_has_room_for_the_rows_of_all_ranks(triton_layer: Callable[..., Built]) -> None:
    """4 ranks of 2 and 1 tokens, or of 6 where a batch of 12 may come; 2 local experts."""
    built, apart = triton_layer(tokens=3), Variant("triton", worst_case_layout="per_expert")
    assert [one["pairs"] for one in buffers(built.run(apart))] == [2 * 4 * 2, 2 * 4 * 1]
    assert [one["pairs"] for one in buffers(built.run(replace(apart, max_tokens_per_rank=12)))] == [2 * 4 * 6] * 2


@interpreted.WHERE
@pytest.mark.parametrize("layout", get_args(WorstCaseLayout))
def test_an_expert_that_gets_every_pair_leaves_the_others_empty(
    layout: WorstCaseLayout, triton_layer: Callable[..., Built]
) -> None:
    built = triton_layer(tokens=8, router=Router())
    built.inputs.logits_LTE[:] = torch.tensor([9.0, 0, 8, 0, 7, 0, 0, 0])  # the first expert of ranks 0, 1 and 2
    run = built.run(Variant("triton", worst_case_layout=layout))
    ends: list[list[int]] = []
    permute = run._stages.bodies[Stage.PERMUTE]

    def noting(state: UbatchState, layer: int) -> None:
        permute(state, layer)
        assert state.pairs is not None
        ends.append(state.pairs.ends_L.tolist())

    run._stages.bodies[Stage.PERMUTE] = noting
    _, traces = run.traced()
    assert all(error.within(2e-2) for error in built.errors(traces))
    assert ends == [[3 * 4, 3 * 4 if layout == "packed" else 4 * 4]] * 4


@interpreted.WHERE
@pytest.mark.parametrize("receive", get_args(Receive))
@pytest.mark.parametrize("policy", ["equal", "ratio"])
def test_micro_batches_without_tokens_have_room_and_change_nothing(
    policy: SplitName, receive: Receive, triton_layer: Callable[..., Built]
) -> None:
    built = triton_layer(tokens=1)
    split = EMPTY_FIRST if policy == "ratio" else SplitPolicy()
    variant = Variant(
        "triton", receive=receive, split=split, max_tokens_per_rank=4, worst_case_layout="per_expert"
    ).normalized()
    assert torch.equal(built.run(variant)(), built.run(Variant("triton").unsplit())())
