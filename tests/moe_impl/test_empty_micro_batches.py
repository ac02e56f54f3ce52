"""Micro-batches of any size, none included, give the unsplit run's answer; a batch may turn TBO off.

Uninitialised memory is NaN here.
"""

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_schedule import STAGES
from small_layer import LOCAL, PACED, Built, workload

from bench import correctness
from moe_impl import variant_run
from moe_impl.options import Engine, Link, Precision, Receive, SplitPolicy, Variant
from moe_impl.overlap.lanes import OneLane
from moe_impl.overlap.schedule import ORDERS
from moe_impl.rows import plan_rows
from moe_impl.shapes import Router
from moe_impl.stages import Stage
from moe_impl.state import UbatchState

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

T2O = Variant("torch")


def shares(tokens: Sequence[int]) -> list[slice]:
    ends = [sum(tokens[: place + 1]) for place in range(len(tokens))]
    return [slice(end - size, end) for end, size in zip(ends, tokens, strict=True)]


def cut_as(tokens: Sequence[int]):  # type: ignore[no-untyped-def]
    """Any cut, whatever the policies would choose."""
    return patch.object(variant_run, "token_slices", lambda variant, T, rows_T: shares(tokens))


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("link", [LOCAL, PACED], ids=["local", "paced"])
@pytest.mark.parametrize("precision", ["bf16", "nvfp4-w4a16"])
@pytest.mark.parametrize("tokens", [(21, 0), (0, 21), (0, 0, 21, 0), (1, 0, 20)])
def test_an_empty_micro_batch_changes_no_answer(
    tokens: tuple[int, ...], precision: Precision, link: Link, receive: Receive
) -> None:
    built = Built(workload(precision), link)
    unsplit = built.run(Variant("torch", receive=receive).unsplit())()
    with cut_as(tokens):
        run = built.run(Variant("torch", split_factor=len(tokens), receive=receive))
    final, traces = run.traced()
    assert all(error.within(correctness.TOLERANCE[precision]) for error in built.errors(traces))
    if max(tokens) == 21:
        assert torch.equal(final, unsplit), "the same rows went through the same kernels"
    assert torch.equal(run(), final)


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(0, 9),
    split_factor=st.integers(1, 4),
    policy=st.sampled_from(["equal", "balanced", "ratio"]),
    receive=st.sampled_from(["worst_case", "exact"]),
    engine=st.sampled_from(["streams", "threads"]),
)
def test_every_layer_of_any_small_batch_agrees_with_the_oracle(
    tokens: int, split_factor: int, policy: str, receive: Receive, engine: Engine
) -> None:
    split_factor = 2 if policy == "ratio" else split_factor
    built = Built(workload(tokens=tokens))
    split = SplitPolicy(policy, 0.2 if policy == "ratio" else 0.5)  # type: ignore[arg-type]
    variant = Variant("torch", engine=engine, split_factor=split_factor, split=split, receive=receive)
    for order in ORDERS:
        run = built.run(replace(variant, order=order))
        final, traces = run.traced()
        assert final.shape == built.inputs.x_TH.shape
        assert not final.isnan().any()
        assert torch.equal(final, built.run(variant.split_serial())())
        assert [trace.y_TH.shape for trace in traces] == [(tokens, 64)] * 2
        if tokens:
            assert all(error.relative <= correctness.TOLERANCE["bf16"] for error in built.errors(traces))


def test_an_empty_transfer_still_takes_its_links_alpha() -> None:
    """A collective must not be skipped because one side has nothing to send."""
    built = Built(workload(), PACED)
    sent = plan_rows(torch.zeros(0, 3, dtype=torch.int32), torch.zeros(0, 3), 8, 4)
    assert (sent.capacity, sent.num_rows.tolist(), sent.num_pairs.tolist()) == (0, [0], [0])
    nothing = torch.empty(0, 64, dtype=torch.bfloat16)
    asked: list[int] = []
    with patch.object(Link, "seconds", lambda self, direction, num_bytes, *dtype: asked.append(num_bytes) or 0.0):
        built.transport.dispatch(nothing, sent, nothing)
        built.transport.combine(nothing, sent, nothing)
    assert asked == [0, 0]


def test_balanced_cuts_halve_the_rows_of_the_true_routing() -> None:
    """The first 8 tokens go to three ranks, the other 12 to two: as many rows before token 8 as after it."""
    built = Built(workload(tokens=20, router=Router()))
    built.inputs.logits_LTE[:] = torch.tensor([9.0, 8, 7, 0, 0, 0, 0, 0])
    built.inputs.logits_LTE[:, :8] = torch.tensor([9.0, 0, 8, 0, 7, 0, 0, 0])
    assert built.stages.rows_per_token() == [2 * 3] * 8 + [2 * 2] * 12, "of both layers"
    run = built.run(Variant("torch", split=SplitPolicy("balanced")))
    assert run._slices == [slice(0, 8), slice(8, 20)]
    assert all(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(run.traced()[1]))


@pytest.mark.parametrize("variant", [T2O, T2O.split_serial()], ids=["T2o", "T2s"])
def test_below_min_tokens_the_unsplit_serial_schedule_runs(variant: Variant) -> None:
    built = Built(workload())
    asked = Variant("torch", engine=variant.engine, split=SplitPolicy(min_tokens=22))
    run = built.run(asked)
    assert run.schedule == built.run(asked.unsplit()).schedule
    assert run.schedule.num_ubatches == 1
    assert isinstance(run._lanes, OneLane)
    assert run.label == asked.label
    assert torch.equal(run(), built.run(T2O.unsplit())())
    at_least = Variant("torch", engine=variant.engine, split=SplitPolicy(min_tokens=21))
    assert built.run(at_least).schedule.num_ubatches == 2


def test_an_empty_micro_batch_passes_every_stage() -> None:
    """It must not be left out: the schedule's waits and a real group's collectives count on it."""
    built, seen = Built(workload()), []
    for stage, body in list(built.stages.bodies.items()):

        def counting(state: UbatchState, layer: int, stage: Stage = stage, body=body) -> None:  # type: ignore[no-untyped-def]
            if state.tokens.start == state.tokens.stop:
                seen.append((layer, stage))
            body(state, layer)

        built.stages.bodies[stage] = counting
    with cut_as([21, 0]):
        built.run(T2O)()
    assert seen == [(layer, stage) for layer in range(2) for stage in STAGES]
