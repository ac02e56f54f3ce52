"""A layer whose peers route for themselves: every variant gives the oracle's answer, and the oracle the definition's.

Uninitialised memory is NaN here.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from rank_pool import RankPool
from small_layer import CPU, LOCAL, PACED, ROUTER, Built, workload

from bench import correctness
from bench.oracle import activations_of
from moe_impl import rows, variant_run
from moe_impl.inputs import Inputs, draw_inputs
from moe_impl.layer import route_plain
from moe_impl.links import COLLECTIVE
from moe_impl.options import Link, Precision, Receive, SkewedRouting, SplitPolicy, Variant, Workload
from moe_impl.reference import SharedWeights, expert_outputs, moe_layer, skewed_layer
from moe_impl.routing import select_experts
from moe_impl.skew import Peers
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

ZIPF, HOTSPOT = SkewedRouting("zipf", 1), SkewedRouting("hotspot", 0.5, "mean")


def skewed(routing: SkewedRouting = ZIPF, precision: Precision = "bf16", **more: Any) -> Workload:
    return replace(workload(precision, **more), routing=routing)


def as_peers(work: Workload, inputs: Inputs, layer: int) -> rows.PeerChoices:
    """Rotated clones said as peers: the copy on rank r chose those of the token's own experts that are there."""
    ids, weights = select_experts(inputs.logits_LTE[layer], inputs.router, work.model.top_k, inputs.bias_E)
    local = work.local_experts
    of_rank_TRK = ids[:, None] - local * torch.arange(work.ep_size, dtype=torch.int32)[:, None]
    here = (of_rank_TRK >= 0) & (of_rank_TRK < local)
    return rows.PeerChoices(torch.where(here, of_rank_TRK, -1), weights[:, None].expand_as(of_rank_TRK).contiguous())


def test_rows_of_peers_that_are_clones_are_the_rows_of_clones() -> None:
    work = workload()
    inputs = draw_inputs(work, CPU)
    asked = (inputs.logits_LTE[0], inputs.router, 3, inputs.bias_E, 8, 4, 4 * 21 + 5)
    plain, found = route_plain(*asked), route_plain(*asked, as_peers(work, inputs, 0))
    used = int(plain.num_rows)
    assert (int(found.num_rows), int(found.num_pairs)) == (used, int(plain.num_pairs))
    assert found.capacity == plain.capacity == 89
    assert torch.equal(found.row_TR, plain.row_TR)
    for name in ("token_M", "experts_MK", "weights_MK"):
        assert torch.equal(getattr(found, name)[:used], getattr(plain, name)[:used])
    assert found.counted("rank") is found.num_rows
    with pytest.raises(ValueError, match="does not count"):
        found.counted("node")


@pytest.mark.parametrize("precision", ["bf16", "nvfp4-w4a16", "nvfp4", "fp8"])
@pytest.mark.parametrize("shared_experts", [0, 2])
def test_the_oracle_of_peers_that_are_clones_is_the_oracle_of_clones(precision: Precision, shared_experts: int) -> None:
    work = workload(precision, shared_experts=shared_experts)
    built = Built(work)
    weights, inputs, shared = built.weights[1], built.inputs, None
    if weights.shared is not None:
        shared = SharedWeights(weights.shared.w13, weights.shared.w2, activations_of(weights.shared))
    more: dict[str, Any] = {"activations": activations_of(weights), "shared": shared}
    experts = (weights.w13, weights.w2)
    peers = as_peers(work, inputs, 1)
    found = skewed_layer(inputs.x_TH, peers.experts_TRK, peers.weights_TRK, *experts, **more)
    expected = moe_layer(
        inputs.x_TH, inputs.logits_LTE[1], *experts, inputs.router, 3, selection_bias_E=inputs.bias_E, ep_size=4, **more
    )
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=1e-6)  # a matmul's last bits depend on its rows
    assert expected.any()


def test_the_oracle_adds_up_peer_by_peer_what_the_definition_says() -> None:
    """In fp64, one row at a time."""
    built = Built(skewed(tokens=5))
    peers = built.inputs.peers_of(0, slice(None))
    assert peers is not None
    weights, x_TH = built.weights[0], built.inputs.x_TH
    found = skewed_layer(
        x_TH, peers.experts_TRK, peers.weights_TRK, weights.w13, weights.w2, compute_dtype=torch.float64
    )
    for token in range(5):
        total = torch.zeros(64, dtype=torch.float64)
        for peer in range(4):
            for slot in range(3):
                expert = peers.experts_TRK[token, peer, slot]
                if expert >= 0:
                    one = (x_TH[token, None], expert.view(1, 1), weights.w13, weights.w2)
                    output = expert_outputs(*one, compute_dtype=torch.float64)[0, 0]
                    total += peers.weights_TRK[token, peer, slot] * output
        torch.testing.assert_close(found[token].double(), total, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("link", [LOCAL, PACED], ids=["local", "paced"])
@pytest.mark.parametrize(
    ("precision", "routing", "shared_experts"),
    [("bf16", ZIPF, 0), ("bf16", HOTSPOT, 2), ("nvfp4", ZIPF, 1), ("fp8", HOTSPOT, 0), ("nvfp4-w4a16", ZIPF, 0)],
    ids=str,
)
def test_every_layer_of_every_split_agrees_with_the_oracle(
    precision: Precision, routing: SkewedRouting, shared_experts: int, link: Link, receive: Receive
) -> None:
    built = Built(skewed(routing, precision, shared_experts=shared_experts), link)
    for split_factor in (1, 2, 3):
        variant = Variant("torch", split_factor=split_factor, receive=receive)
        run = built.run(variant)
        final, traces = run.traced()
        assert all(error.within(correctness.TOLERANCE[precision]) for error in built.errors(traces)), variant.label
        assert torch.equal(final, built.run(variant.split_serial())())
        assert torch.equal(final, built.run(replace(variant, engine="threads").normalized())())


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("tokens", [(21, 0), (0, 21), (1, 0, 20)])
def test_an_empty_micro_batch_changes_no_answer(tokens: tuple[int, ...], receive: Receive) -> None:
    built = Built(skewed(), PACED)
    ends = [sum(tokens[: place + 1]) for place in range(len(tokens))]
    slices = [slice(end - size, end) for end, size in zip(ends, tokens, strict=True)]
    with patch.object(variant_run, "token_slices", lambda variant, T, rows_T: slices):
        run = built.run(Variant("torch", split_factor=len(tokens), receive=receive))
    final, traces = run.traced()
    assert all(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(traces))
    if max(tokens) == 21:
        assert torch.equal(final, built.run(Variant("torch", receive=receive).unsplit())())


def test_room_for_a_larger_batch_and_balanced_cuts_follow_the_tables() -> None:
    built = Built(skewed())
    variant = Variant("torch", split=SplitPolicy("balanced"), max_tokens_per_rank=64)
    run = built.run(variant)
    per_token = [0] * 21
    for layer in range(2):
        found = built.inputs.peers_of(layer, slice(None))
        assert found is not None
        here_T = (found.experts_TRK >= 0).any(-1).sum(1).tolist()
        per_token = [one + more for one, more in zip(per_token, here_T, strict=True)]
    assert built.stages.rows_per_token() == per_token
    cut = run._slices[0].stop
    assert abs(sum(per_token[:cut]) - sum(per_token) / 2) <= max(per_token) / 2
    assert all(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(run.traced()[1]))


def test_a_token_that_no_peer_brings_here_gets_nothing_and_a_peer_may_bring_none() -> None:
    """Peers 1 and 3 send nothing at all; nor does anyone token 4. Its x stays as it is."""
    work = skewed()
    inputs = draw_inputs(work, CPU)
    assert inputs.peers is not None
    choices = []
    for one in inputs.peers.choices:
        experts = one.experts_TRK.clone()
        experts[:, [1, 3]] = experts[4] = -1
        choices.append(rows.PeerChoices(experts, one.weights_TRK))
    built = Built(work, inputs=replace(inputs, peers=Peers(0, tuple(choices), ())))
    final, traces = built.run(Variant("torch")).traced()
    assert torch.equal(final[4], built.inputs.x_TH[4])
    for layer, (error, trace) in enumerate(zip(built.errors(traces), traces, strict=True)):
        assert error.relative <= correctness.TOLERANCE["bf16"]
        sent_T = (choices[layer].experts_TRK >= 0).any(-1).any(-1)
        assert not trace.y_TH[~sent_T].any()
        assert trace.y_TH[sent_T].any(-1).all()


def test_a_layer_that_ignored_the_tables_is_caught() -> None:
    work = skewed()
    built = Built(work, inputs=replace(draw_inputs(work, CPU), peers=None))
    traces = built.run(Variant("torch")).traced()[1]
    built.inputs = draw_inputs(work, CPU)
    assert not any(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(traces))


def received(rank: int, work: Workload) -> list[tuple[int, int]]:
    """On one rank of a real group: rows and pairs that came, by layer."""
    built = Built(work, COLLECTIVE, inputs=draw_inputs(work, CPU, rank))
    came: list[tuple[int, int]] = []
    permute = built.stages.bodies[Stage.PERMUTE]

    def noting(state: UbatchState, layer: int) -> None:
        assert state.received_rows is not None
        came.append((int(state.received_rows.num_rows), int(state.received_rows.num_pairs)))
        permute(state, layer)

    built.stages.bodies[Stage.PERMUTE] = noting
    _, traces = built.run(Variant("torch").unsplit()).traced()
    assert all(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(traces))
    return came


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankPool]:
    folder: Path = tmp_path_factory.mktemp("four")
    with RankPool(4, folder) as pool:
        yield pool


@pytest.mark.parametrize("routing", [ZIPF, SkewedRouting("hotspot", 0.5)], ids=str)
def test_the_rank_that_is_played_receives_what_that_rank_of_a_real_group_receives(
    group: RankPool, routing: SkewedRouting
) -> None:
    work = skewed(routing, router=ROUTER)
    of_ranks = group.call(received, work)
    assert len({sum(pairs for _, pairs in layers) for layers in of_ranks}) > 1, "ranks must differ"
    for rank, layers in enumerate(of_ranks):
        inputs = draw_inputs(replace(work, routing=replace(routing, rank=rank)), CPU)
        plans = [route_plain(logits, inputs.router, 3, None, 8, 4, peers=inputs.peers_of(layer, slice(None)))
                 for layer, logits in enumerate(inputs.logits_LTE)]  # fmt: skip
        assert [(int(plan.num_rows), int(plan.num_pairs)) for plan in plans] == layers
        assert inputs.peers is not None
        assert inputs.peers.rank_rows == tuple(sum(rows_ for rows_, _ in one) / 2 for one in of_ranks)
