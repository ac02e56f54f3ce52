"""Stage ``shared``: every token's own experts, checked against the oracle and against a plain MLP."""

from dataclasses import replace

import interpreted
import pytest
import torch
import torch.nn.functional as F
from small_layer import LOCAL, PACED, Built, workload

from bench import correctness
from moe_impl import layer, rows
from moe_impl.options import Engine, Link, Order, Precision, Receive, SplitPolicy, Variant
from moe_impl.reference import SharedWeights, moe_layer
from moe_impl.shapes import PRESETS

WITH_SHARED = {
    "deepseek-v3": 1,
    "deepseek-r1": 1,
    "kimi-k2": 1,
    "ernie-4.5-21b-a3b": 2,
}


def test_the_presets_that_have_shared_experts() -> None:
    assert {name: model.shared_experts for name, model in PRESETS.items() if model.shared_experts} == WITH_SHARED


def test_shared_experts_are_one_of_the_summed_width_with_weights_of_its_own() -> None:
    shared = Built(workload(shared_experts=2)).weights[0].shared
    assert shared is not None
    assert (shared.w13.shape, shared.w2.shape) == ((1, 4 * 64, 64), (1, 64, 2 * 64))  # type: ignore[union-attr]
    routed, other = (Built(workload(shared_experts=count)).weights[0] for count in (2, 0))
    assert torch.equal(routed.w13, other.w13), "a new purpose changes no other's numbers"  # type: ignore[arg-type]


def test_the_oracle_adds_a_plain_mlp_of_every_token() -> None:
    built = Built(workload(shared_experts=1))
    weights, shared = built.weights[0], built.weights[0].shared
    assert shared is not None
    common = (built.inputs.x_TH, built.inputs.logits_LTE[0], weights.w13, weights.w2, built.inputs.router, 3)
    wide = {"selection_bias_E": built.inputs.bias_E, "compute_dtype": torch.float64}
    without = moe_layer(*common, **wide)  # type: ignore[arg-type]
    found = moe_layer(*common, **wide, shared=SharedWeights(shared.w13, shared.w2))  # type: ignore[arg-type]
    gate, up = F.linear(built.inputs.x_TH.double(), shared.w13[0].double()).chunk(2, -1)  # type: ignore[index]
    mlp = F.linear(F.silu(gate) * up, shared.w2[0].double())  # type: ignore[index]
    torch.testing.assert_close(found - without, mlp)


@pytest.mark.parametrize("precision", ["bf16", "nvfp4-w4a16"])
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("link", [LOCAL, PACED], ids=["local", "paced"])
def test_a_layer_with_shared_experts_agrees_with_the_oracle(precision: Precision, receive: Receive, link: Link) -> None:
    built = Built(workload(precision, shared_experts=2), link)
    for split_factor in (1, 3):
        _, traces = built.run(Variant("torch", split_factor=split_factor, receive=receive)).traced()
        assert all(error.within(correctness.TOLERANCE[precision]) for error in built.errors(traces))


@pytest.mark.parametrize("engine", ["streams", "threads"])
@pytest.mark.parametrize("order", ["yield_before", "yield_after"])
def test_engines_and_orders_agree_to_the_bit(engine: Engine, order: Order) -> None:
    built = Built(workload(shared_experts=1))
    serial = built.run(Variant("torch").split_serial())()
    assert torch.equal(built.run(Variant("torch", engine=engine, order=order))(), serial)


def test_leaving_the_shared_experts_out_is_caught() -> None:
    built = Built(workload(shared_experts=1))
    built.stages._shared_experts = None
    built.stages.bodies[layer.Stage.SHARED] = lambda state, layer: None
    errors = built.errors(built.run(Variant("torch")).traced()[1])
    assert not any(error.within(correctness.TOLERANCE["bf16"]) for error in errors)


def test_an_empty_micro_batch_passes_its_shared_experts() -> None:
    built = Built(workload(tokens=3, shared_experts=1))
    variant = Variant("torch", split=SplitPolicy("ratio", 0.01))
    _, traces = built.run(variant).traced()
    assert all(error.within(correctness.TOLERANCE["bf16"]) for error in built.errors(traces))


@interpreted.WHERE
def test_the_merge_kernel_adds_the_shared_output_last() -> None:
    from moe_impl.kernels.merge_rows import merge_rows

    draw = torch.Generator().manual_seed(3)
    x, shared, returned = (torch.randn(n, 64, generator=draw).bfloat16() for n in (5, 5, 10))
    sent = rows.plan_rows(torch.tensor([[0, 3]] * 4 + [[1, 2]], dtype=torch.int32), torch.ones(5, 2), 4, 2)
    returned = returned[: sent.capacity]
    for one, other in zip(
        merge_rows(x, returned, sent, shared), rows.merge_rows(x, returned, sent, shared), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=2**-7, atol=2**-5)  # the interpreter truncates bf16
    y, _ = rows.merge_rows(x, returned, sent, shared)
    assert not torch.equal(y, rows.merge_rows(x, returned, sent)[0])


@interpreted.WHERE
@pytest.mark.parametrize("experts", ["torch", "triton"])
def test_a_layer_of_kernels_with_shared_experts(experts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from moe_impl.experts.base import backend
    from moe_impl.transport.cuda_rows import LocalCuda

    monkeypatch.setattr(layer, "row_ops", lambda device, of=layer.row_ops: of(torch.device("cuda")))
    work = replace(workload("nvfp4-w4a16", tokens=7, shared_experts=1), layers=1)
    built = Built(work, experts=backend(experts, "nvfp4-w4a16", 1.5), over=LocalCuda())  # type: ignore[arg-type]
    final, traces = built.run(Variant(experts)).traced()  # type: ignore[arg-type]
    assert all(error.within(2e-2) for error in built.errors(traces))
    assert torch.equal(final, built.run(Variant(experts).split_serial())())  # type: ignore[arg-type]
