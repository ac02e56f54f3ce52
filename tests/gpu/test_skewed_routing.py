"""Skewed routing on a GPU: rows of the peers' choices, the same bits from every variant, no wait for the host."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from no_wait import no_wait
from small_target import MODEL, SLOW, ignore

from bench.cases import Case
from bench.correctness import TOLERANCE, errors
from bench.targets import Target, Targets
from moe_impl.inputs import draw_inputs
from moe_impl.layer import route_plain
from moe_impl.links import HOST_LINK, LOCAL
from moe_impl.options import Link, Precision, SkewedRouting, Variant, Workload
from moe_impl.shapes import PRESETS

pytestmark = pytest.mark.gpu

ROUTINGS = (SkewedRouting("zipf", 1), SkewedRouting("hotspot", 0.5, "mean"), SkewedRouting("hotspot", 1, 3))


def _target(routing: SkewedRouting, precision: Precision, link: Link, tokens: int = 515, **model: Any) -> Target:
    workload = Workload(replace(MODEL, **model), ep_size=8, layers=2, tokens=tokens, precision=precision)
    return Targets(torch.device("cuda")).build(Case(replace(workload, routing=routing), link, ()))


@pytest.mark.parametrize("ranks", [8, 32])
@pytest.mark.parametrize("routing", ROUTINGS, ids=str)
def test_the_routing_kernel_lays_out_what_peers_chose_at_deepseeks_size(routing: SkewedRouting, ranks: int) -> None:
    from moe_impl.kernels.route_tokens import route_tokens

    work = Workload(PRESETS["deepseek-v3"], ranks, layers=2, tokens=1003, precision="bf16", routing=routing)
    inputs = draw_inputs(work, torch.device("cuda"))
    assert inputs.peers is not None
    for layer, logits_TE in enumerate(inputs.logits_LTE):
        for tokens in (slice(0, 1003), slice(0, 501), slice(501, 1003), slice(7, 8), slice(3, 3)):
            peers = inputs.peers_of(layer, tokens)
            asked = (logits_TE[tokens], inputs.router, 8, None, 256, ranks, ranks * 1003, peers)
            plain, fused = route_plain(*asked), route_tokens(*asked)
            used = int(plain.num_rows)
            assert (int(fused.num_rows), int(fused.num_pairs)) == (used, int(plain.num_pairs))
            assert torch.equal(plain.row_TR, fused.row_TR)
            for name in ("token_M", "experts_MK", "weights_MK"):
                assert torch.equal(getattr(plain, name)[:used], getattr(fused, name)[:used])
    rank_rows = inputs.peers.rank_rows
    assert max(rank_rows) > 1.05 * sum(rank_rows) / ranks, "ranks must differ"


@pytest.mark.parametrize("link", [LOCAL, SLOW, HOST_LINK], ids=lambda link: link.name)
@pytest.mark.parametrize(
    ("precision", "experts", "routing"),
    [
        ("bf16", "torch", ROUTINGS[0]),
        ("nvfp4-w4a16", "triton", ROUTINGS[1]),
        ("nvfp4", "triton", ROUTINGS[0]),
        ("nvfp4", "triton", ROUTINGS[2]),
    ],
    ids=str,
)
def test_every_variant_agrees_with_the_oracle_and_with_the_others(
    precision: Precision, experts: Any, routing: SkewedRouting, link: Link
) -> None:
    target = _target(routing, precision, link, shared_experts=1)
    for overlapped in (Variant(experts), Variant(experts, "threads", 3), Variant(experts, receive="exact")):
        finals = {}
        for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped):
            target.poison(variant)
            run = target.run(variant, ignore)
            final, traces = run.traced()
            for layer, trace in enumerate(traces):
                assert errors(trace.y_TH, target.oracle(layer, trace)).within(TOLERANCE[precision]), variant.label
            assert all(torch.equal(run(), final) for _ in range(5)), variant.label
            finals[variant.role] = final
        assert torch.equal(finals["T2s"], finals["T2o"])
        if target.batch_invariant(overlapped):
            assert torch.equal(finals["T1"], finals["T2o"])


def test_room_at_each_expert_is_enough_for_the_hottest() -> None:
    target = _target(SkewedRouting("hotspot", 1), "nvfp4", LOCAL)
    apart = Variant("triton", worst_case_layout="per_expert", max_tokens_per_rank=1024)
    target.poison(apart)
    assert torch.equal(target.run(apart, ignore)(), target.run(Variant("triton").unsplit(), ignore)())
    traffic = target.traffic()
    assert traffic.busiest_expert_pairs >= 8 * 515, "every peer's every token brings the hot expert's rank a pair"


def test_issuing_never_waits_for_the_host() -> None:
    run = _target(ROUTINGS[0], "nvfp4", LOCAL).run(Variant("triton"), ignore)
    run()
    with no_wait():
        run()
