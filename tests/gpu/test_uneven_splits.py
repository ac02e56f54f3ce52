"""Micro-batches without tokens on a GPU: real launches, both links, both receives, every engine."""

import pytest
import torch
from small_target import SLOW, ignore, small_target

from bench.correctness import errors
from moe_impl.links import LOCAL
from moe_impl.options import Link, Precision, Receive, SplitPolicy, Variant
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

pytestmark = pytest.mark.gpu

EMPTY_FIRST = SplitPolicy("ratio", 0.001)
EMPTY_LAST = SplitPolicy("ratio", 0.999)


@pytest.mark.parametrize("engine", ["streams", "threads"])
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("link", [LOCAL, SLOW], ids=lambda link: link.name)
@pytest.mark.parametrize(
    ("precision", "experts"), [("bf16", "torch"), ("nvfp4-w4a16", "torch"), ("nvfp4-w4a16", "triton")]
)
def test_an_empty_micro_batch_gives_the_unsplit_bits(
    precision: Precision, experts: str, link: Link, receive: Receive, engine: str
) -> None:
    target = small_target(precision, link, tokens=67)
    for split in (EMPTY_FIRST, EMPTY_LAST):
        overlapped = Variant(experts, engine=engine, receive=receive, split=split)  # type: ignore[arg-type]
        finals = {}
        for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped):
            target.poison(variant)
            run = target.run(variant, ignore)
            final, traces = run.traced()
            for layer, trace in enumerate(traces):
                assert errors(trace.y_TH, target.oracle(layer, trace)).within(1e-2), (variant.label, layer)
            assert all(torch.equal(run(), final) for _ in range(5)), variant.label
            finals[variant.role] = final
        assert sorted(part.stop - part.start for part in run._slices) == [0, 67]
        # One micro-batch holds every token: the same kernels see the same rows as in the unsplit run.
        assert torch.equal(finals["T1"], finals["T2s"])
        assert torch.equal(finals["T2s"], finals["T2o"])


@pytest.mark.parametrize(("precision", "experts"), [("bf16", "torch"), ("nvfp4-w4a16", "triton")])
def test_fewer_tokens_than_micro_batches_agree_with_the_oracle(precision: Precision, experts: str) -> None:
    for tokens in (1, 2, 3):
        target = small_target(precision, SLOW, tokens)
        for receive in ("worst_case", "exact"):
            overlapped = Variant(experts, split_factor=4, receive=receive)  # type: ignore[arg-type]
            serial = target.run(overlapped.split_serial(), ignore)()
            final, traces = target.run(overlapped, ignore).traced()
            for layer, trace in enumerate(traces):
                assert errors(trace.y_TH, target.oracle(layer, trace)).relative <= 1e-2
            assert torch.equal(final, serial)


def test_a_balanced_split_of_the_true_routing_agrees_and_is_balanced() -> None:
    target = small_target("bf16", SLOW, tokens=515)
    run = target.run(Variant("torch", split_factor=4, split=SplitPolicy("balanced")), ignore)
    loads: list[int] = [0] * 4
    route = run._stages.bodies[Stage.ROUTE]

    def counting(state: UbatchState, layer: int) -> None:
        route(state, layer)
        assert state.rows is not None
        loads[[part.start for part in run._slices].index(state.tokens.start)] += int(state.rows.num_rows)

    run._stages.bodies[Stage.ROUTE] = counting
    _, traces = run.traced()
    assert max(loads) - min(loads) <= 2 * 2 * 8, "a token's rows of both layers on either side of a cut"
    for layer, trace in enumerate(traces):
        assert errors(trace.y_TH, target.oracle(layer, trace)).within(1e-2)


def test_below_min_tokens_the_unsplit_run_is_what_runs() -> None:
    target = small_target("bf16", LOCAL, tokens=128)
    variant = Variant("torch", split=SplitPolicy(min_tokens=129))
    assert torch.equal(target.run(variant, ignore)(), target.run(variant.unsplit(), ignore)())
