"""Link ``collective`` between real processes (gloo): every rank has the bits of the rule that all links follow.

Uninitialised memory is NaN in the ranks (rank_pool.py).
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from rank_pool import RankPool
from small_layer import CPU, ROUTER, Built, workload
from torch import Tensor

from bench import correctness
from moe_impl import rows
from moe_impl.experts import torch_backend
from moe_impl.inputs import Inputs, draw_inputs
from moe_impl.layer import route_plain
from moe_impl.links import COLLECTIVE
from moe_impl.options import SplitPolicy, Variant, Workload
from moe_impl.reference import combine_by_rank
from moe_impl.routing import select_experts
from moe_impl.shapes import Router
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.transport.base import transport

SIZES = (2, 4)


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, RankPool]]:
    with RankPool(2, tmp_path_factory.mktemp("two")) as two, RankPool(4, tmp_path_factory.mktemp("four")) as four:
        yield {2: two, 4: four}


def of_rank(
    rank: int, tokens: tuple[int, ...], hot: int | None = None, dispatch_dtype: Any = None, **more: Any
) -> tuple[Workload, Inputs]:
    """The workload and inputs of one of ``len(tokens)`` ranks.

    Args:
        tokens: of each rank.
        hot: the rank that holds every token's first choices.
    """
    router = ROUTER if hot is None else Router()
    work = replace(workload(tokens=tokens[rank], router=router, **more), ep_size=len(tokens))
    if dispatch_dtype is not None:
        work = replace(work, dispatch_dtype=dispatch_dtype)
    inputs = draw_inputs(work, CPU, rank)
    if hot is not None:
        inputs.logits_LTE[..., hot * work.local_experts : (hot + 1) * work.local_experts] += 50
    return work, inputs


def summed_in_fp64(x_PK: Tensor, weights_LNK: Tensor, ends_L: Tensor) -> Tensor:
    """The grouped matmul of a backend that is batch-invariant, which a CPU's own need not be."""
    out = x_PK.new_empty(x_PK.shape[0], weights_LNK.shape[1])
    start = 0
    for expert, end in enumerate(ends_L.tolist()):
        out[start:end] = (x_PK[start:end].double() @ weights_LNK[expert].double().t()).to(out.dtype)
        start = end
    return out


def expected_y(built: Built, layer: int, x_TH: Tensor) -> Tensor:
    """The experts' own stages on this rank's own tokens for all their experts, then the rule of ``combine_by_rank``."""
    work, inputs, prepared = built.work, built.inputs, built.ready.prepared[layer]
    model = work.model
    ids, weights = select_experts(inputs.logits_LTE[layer], inputs.router, model.top_k, inputs.bias_E)
    T, K = ids.shape
    here = rows.ReceivedRows(
        experts_MK=(ids % work.local_experts).int(),
        weights_MK=weights,
        num_rows=torch.tensor([T], dtype=torch.int32),
        num_pairs=torch.tensor([T * K], dtype=torch.int32),
        exact_pairs=T * K,
    )
    state = UbatchState(slice(0, T), x_TH, pairs=rows.plan_pairs(here, work.local_experts))
    state.received_MB = built.experts.quantize(prepared, x_TH) if work.quantizes else x_TH
    for stage in (built.experts.permute, built.experts.gemm1, built.experts.silu_mul, built.experts.gemm2):
        stage(prepared, state)
    assert state.outputs_PH is not None
    assert state.pairs is not None
    assert state.pairs.pair_MK is not None
    shared = built.stages._shared_experts
    shared_TH = None if shared is None else shared.run(x_TH, layer)
    outputs_TKH = state.outputs_PH[state.pairs.pair_MK.long()]
    return combine_by_rank(outputs_TKH, ids, weights, model.num_experts, work.ep_size, shared_TH)


def agrees(
    rank: int, variants: list[Variant], tokens: tuple[int, ...], more: dict[str, Any] | None = None
) -> list[int]:
    """On one rank: all variants have the expected bits; returns the rows that the last one received in each layer."""
    own, torch_backend.grouped_mm = torch_backend.grouped_mm, summed_in_fp64
    try:
        work, inputs = of_rank(rank, tokens, **(more or {}))
        built = Built(work, COLLECTIVE, inputs=inputs)
        for variant in variants:
            run = built.run(variant)
            final, traces = run.traced()
            for layer, trace in enumerate(traces):
                assert torch.equal(trace.y_TH, expected_y(built, layer, trace.x_TH)), (variant.label, layer)
            if tokens[rank]:
                errors = built.errors(traces)
                assert all(e.relative <= correctness.TOLERANCE[work.precision] for e in errors), (variant.label, errors)
            assert torch.equal(run(), final), variant.label
            bodies, received = dict(run._stages.bodies), []

            def noting(state: UbatchState, layer: int, permute=bodies[Stage.PERMUTE], received=received) -> None:  # type: ignore[no-untyped-def]
                received.append(int(state.received_rows.num_rows))  # type: ignore[union-attr]
                permute(state, layer)

            bodies[Stage.PERMUTE] = noting
            run._run(bodies, None)
        return received
    finally:
        torch_backend.grouped_mm = own


ALL = [
    Variant("torch", engine, split, receive=receive)  # type: ignore[arg-type]
    for receive, engine, split in product(("worst_case", "exact"), ("serial", "streams", "threads"), (1, 2, 3))
]
EACH_RECEIVE = [Variant("torch", split_factor=3, receive=receive) for receive in ("worst_case", "exact")]  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES)
def test_every_engine_split_and_receive_has_the_bits_of_the_rule(pools: dict[int, RankPool], size: int) -> None:
    variants = [variant.normalized() for variant in ALL]
    received = pools[size].call(agrees, variants, (21, 13, 8, 21)[:size])
    assert all(sum(rows_) > 0 for rows_ in received)


@pytest.mark.parametrize(
    "more",
    [
        {"precision": "nvfp4-w4a16"},
        {"precision": "nvfp4"},
        {"precision": "fp8"},
        {"precision": "nvfp4", "dispatch_dtype": "bf16"},
        {"shared_experts": 2},
    ],
    ids=str,
)
def test_other_payloads_and_shared_experts(pools: dict[int, RankPool], more: dict[str, Any]) -> None:
    pools[2].call(agrees, EACH_RECEIVE, (21, 13), more)


@pytest.mark.parametrize("tokens", [(0, 9), (2, 0), (0, 0), (1, 7)], ids=str)
def test_ranks_without_tokens_and_empty_micro_batches_take_part(
    pools: dict[int, RankPool], tokens: tuple[int, ...]
) -> None:
    pools[2].call(agrees, EACH_RECEIVE, tokens)


@pytest.mark.parametrize("policy", ["balanced", "equal"])
def test_cuts_that_differ_by_rank_meet_in_the_same_collectives(pools: dict[int, RankPool], policy: str) -> None:
    split = SplitPolicy(policy)  # type: ignore[arg-type]
    pools[4].call(agrees, [replace(variant, split=split) for variant in EACH_RECEIVE], (5, 21, 1, 0))


def test_all_tokens_on_one_rank_leave_the_others_with_none(pools: dict[int, RankPool]) -> None:
    """4 local experts, 3 a token: with 2 ranks all choices of all tokens lie on the hot one."""
    nothing, everything = pools[2].call(agrees, EACH_RECEIVE, (21, 13), {"hot": 1})
    assert nothing == [0] * 6
    assert sum(everything) == 2 * (21 + 13)
    pools[4].call(agrees, EACH_RECEIVE, (21, 13, 0, 4), {"hot": 2})


def test_worst_case_buffers_with_room_for_more(pools: dict[int, RankPool]) -> None:
    roomy = [Variant("torch", split_factor=split, max_tokens_per_rank=40) for split in (1, 2)]
    pools[2].call(agrees, [variant.normalized() for variant in roomy], (21, 21))


def arrived(rank: int, tokens: tuple[int, ...], receive: str) -> tuple[int, int]:
    """What one dispatch brings against all ranks' plans, recomputed here; (rows received, room for them)."""
    plans = []
    for peer in range(len(tokens)):
        work, inputs = of_rank(peer, tokens)
        model = work.model
        sent = route_plain(
            inputs.logits_LTE[0], inputs.router, model.top_k, inputs.bias_E, model.num_experts, len(tokens)
        )
        plans.append((inputs.x_TH, sent))
    expected: list[tuple[Tensor, Tensor, Tensor]] = []
    for x_TH, sent in plans:
        for token, row in enumerate(sent.row_TR[:, rank].tolist()):
            if row >= 0:
                expected.append((x_TH[token], sent.experts_MK[row], sent.weights_MK[row]))
    x_TH, sent = plans[rank]
    over = transport(COLLECTIVE, work, CPU)
    if receive == "exact":
        sent = over.receive_sizes(CPU).wait(sent)
    else:
        sent = sent.knowing(over.learn(sent))
    sent = over.ready(sent)
    room = torch.full((sent.received.capacity, x_TH.shape[1]), -7.0).bfloat16()
    over.dispatch(x_TH, sent, room)
    count = int(sent.received.num_rows)
    assert count == len(expected)
    assert int(sent.received.num_pairs) == sum(int((experts >= 0).sum()) for _, experts, _ in expected)
    for row, (x_H, experts_K, weights_K) in enumerate(expected):
        there_K = experts_K >= 0
        assert torch.equal(room[row], x_H)
        assert torch.equal(sent.received.experts_MK[row], experts_K)
        assert torch.equal(sent.received.weights_MK[row][there_K], weights_K[there_K])
    assert (room[count:] == -7).all(), "past the rows that came"
    returned = torch.full((sent.capacity, x_TH.shape[1]), -7.0).bfloat16()
    over.combine(room * 2, sent, returned)
    used = int(sent.num_rows)
    assert torch.equal(returned[:used], x_TH[sent.token_M[:used].long()] * 2)
    assert (returned[used:] == -7).all()
    return count, sent.received.capacity


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("tokens", [(9, 4), (3, 0, 12, 5)], ids=str)
def test_rows_come_by_source_rank_then_token_and_go_back_to_their_places(
    pools: dict[int, RankPool], tokens: tuple[int, ...], receive: str
) -> None:
    found = pools[len(tokens)].call(arrived, tokens, receive)
    for count, room in found:
        assert room == (count if receive == "exact" else len(tokens) * max(tokens))


def test_there_is_no_such_link_outside_a_group_of_its_ranks() -> None:
    with pytest.raises(ValueError, match="link collective needs a process group of 4 ranks, got 0"):
        transport(COLLECTIVE, workload(), CPU)


def test_the_host_must_know_what_it_sends() -> None:
    from moe_impl.transport.collective import known

    with pytest.raises(ValueError, match="needs row counts by peer that the host knows"):
        known(rows.plan_rows(torch.zeros(3, 1, dtype=torch.int32), torch.ones(3, 1), 2, 2))


def test_counts_by_peer_are_those_of_the_planned_rows() -> None:
    ids = torch.tensor([[0, 1, 5], [4, 5, 6], [2, 3, 7]], dtype=torch.int32)
    sent = rows.plan_rows(ids, torch.ones(3, 3), num_experts=8, ep_size=4)
    counts_R2 = torch.full((4, 2), -1, dtype=torch.int32)
    rows.count_peers(sent, counts_R2)
    assert counts_R2.tolist() == [[1, 2], [1, 2], [2, 3], [2, 2]]
