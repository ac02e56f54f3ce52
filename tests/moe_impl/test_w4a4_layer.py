"""Whole layers in W4A4: NVFP4 activations before both GEMMs, under one static scale each, as the oracle has them."""

from dataclasses import replace
from typing import Any

import interpreted
import pytest
import torch
from decoded import dense
from small_layer import CPU, LOCAL, PACED, Built, workload

from bench.correctness import TOLERANCE
from moe_impl import layer
from moe_impl.experts.base import backend
from moe_impl.inputs import draw_inputs
from moe_impl.nvfp4 import E2M1_MAX, E4M3_MAX
from moe_impl.options import Link, Order, Receive, SplitPolicy, Variant, Workload
from moe_impl.overlap.schedule import ORDERS
from moe_impl.payload import PayloadDtype
from moe_impl.weights import AMAX_SPREAD, draw_layer

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

T2O = Variant("torch")
NUMPY = pytest.mark.filterwarnings("ignore:divide by zero", "ignore:overflow", "ignore:invalid value")


def w4a4(dispatch: PayloadDtype = "nvfp4", **more: Any) -> Workload:
    return replace(workload("nvfp4", **more), dispatch_dtype=dispatch)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("split_factor", [1, 2, 4])
@pytest.mark.parametrize("link", [LOCAL, PACED], ids=["local", "paced"])
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
def test_every_variant_agrees_with_an_oracle_that_quantizes_alike(
    receive: Receive, link: Link, split_factor: int, order: Order
) -> None:
    built = Built(w4a4(), link)
    _, traces = built.run(Variant("torch", split_factor=split_factor, order=order, receive=receive)).traced()
    errors = built.errors(traces)
    assert all(error.within(TOLERANCE["nvfp4"]) for error in errors)
    assert all(error.relative < 0.05 for error in errors)


@pytest.mark.parametrize("shared_experts", [0, 2])
@pytest.mark.parametrize("scaled", ["w13_input_scale", "w2_input_scale"])
def test_an_oracle_that_reads_x_or_h_under_another_scale_disagrees(scaled: str, shared_experts: int) -> None:
    """Each of the scales is applied, and undone: for the routed experts and the shared ones."""
    built = Built(w4a4(shared_experts=shared_experts))
    _, traces = built.run(T2O).traced()
    before = max(error.relative for error in built.errors(traces))
    for weights in built.weights:
        if weights.shared is not None:
            object.__setattr__(weights.shared, scaled, 0.7 * getattr(weights.shared, scaled))
        else:
            object.__setattr__(weights, scaled, 0.7 * getattr(weights, scaled))
    assert before < 0.05
    assert max(error.relative for error in built.errors(traces)) > 1.2 * before


def test_activations_really_have_four_bits() -> None:
    """Against the W4A16 oracle (no activation scales) the same run is off by what NVFP4 costs."""
    built = Built(w4a4(shared_experts=1))
    _, traces = built.run(T2O).traced()
    for weights in built.weights:
        object.__setattr__(weights, "w13_input_scale", None)
        object.__setattr__(weights.shared, "w13_input_scale", None)
    assert all(0.08 < error.relative < 0.3 for error in built.errors(traces))


@pytest.mark.parametrize("shared_experts", [0, 1])
def test_rows_quantized_before_and_after_dispatch_give_the_same_bits(shared_experts: int) -> None:
    before, after = (Built(w4a4(dispatch, shared_experts=shared_experts)) for dispatch in ("nvfp4", "bf16"))
    assert torch.equal(before.run(T2O)(), after.run(T2O)())
    assert torch.equal(before.run(T2O)(), after.run(Variant("torch", receive="exact"))())


def test_split_serial_and_overlapped_runs_give_the_same_bits() -> None:
    built = Built(w4a4(shared_experts=1))
    serial = built.run(T2O.split_serial())()
    for order in ORDERS:
        assert torch.equal(built.run(Variant("torch", order=order))(), serial)


@pytest.mark.parametrize("dispatch", ["nvfp4", "bf16"])
def test_an_empty_micro_batch_passes(dispatch: PayloadDtype) -> None:
    built = Built(w4a4(dispatch, tokens=3, shared_experts=1))
    _, traces = built.run(Variant("torch", split=SplitPolicy("ratio", 0.01))).traced()
    assert all(error.within(TOLERANCE["nvfp4"]) for error in built.errors(traces))


def test_input_scales_differ_by_expert_leave_weights_alone_and_are_in_no_other_precision() -> None:
    work = w4a4(shared_experts=1)
    weights = [draw_layer(work, at, CPU) for at in range(2)]
    plain = draw_layer(workload("nvfp4-w4a16", shared_experts=1), 0, CPU)
    assert plain.w13_input_scale is plain.w2_input_scale is plain.shared.w13_input_scale is None  # type: ignore[union-attr]
    assert torch.equal(plain.w13.packed, weights[0].w13.packed)  # type: ignore[union-attr]
    for name in ("w13_input_scale", "w2_input_scale"):
        first, second = (getattr(one, name) for one in weights)
        assert (first.shape, first.dtype) == ((2,), torch.float32)
        assert 1 < first.max() / first.min() <= 1 + AMAX_SPREAD
        assert getattr(weights[0].shared, name).shape == (1,)
        assert second.min() > first.max()


def test_nothing_saturates() -> None:
    """x and h of both layers lie under the largest value that their scale can hold, by a wide margin."""
    built = Built(w4a4(tokens=200))
    _, traces = built.run(T2O).traced()
    for weights, trace in zip(built.weights, traces, strict=True):
        most = E2M1_MAX * E4M3_MAX * weights.w13_input_scale.max()  # type: ignore[union-attr]
        assert trace.x_TH.abs().max() < most / 4
        w13 = dense(weights.w13)  # type: ignore[arg-type]
        gate, up = torch.einsum("th,ejh->etj", trace.x_TH.float(), w13).chunk(2, -1)
        h = torch.nn.functional.silu(gate) * up
        assert h.abs().max() < E2M1_MAX * E4M3_MAX * weights.w2_input_scale.max() / 4  # type: ignore[union-attr]


@interpreted.WHERE
@NUMPY
@pytest.mark.parametrize("fp4", [False, True])
@pytest.mark.parametrize(("dispatch", "layout"), [("nvfp4", "packed"), ("bf16", "per_expert")])
def test_the_triton_backend_gives_one_answer_in_all_roles(
    dispatch: PayloadDtype, layout: str, fp4: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``fp4``: the backend of GPUs with FP4 tensor cores, whose products are expanded here."""
    from moe_impl.experts import triton_fp4
    from moe_impl.transport.cuda_rows import LocalCuda

    monkeypatch.setattr(layer, "row_ops", lambda device, of=layer.row_ops: of(torch.device("cuda")))
    work = replace(w4a4(dispatch, tokens=7, shared_experts=1), layers=1)
    built = Built(work, experts=backend("triton", "nvfp4", 1.5, (10, 0) if fp4 else None), over=LocalCuda())
    assert isinstance(built.experts, triton_fp4.TritonFp4Experts) == fp4
    variant = Variant("triton", worst_case_layout=layout)  # type: ignore[arg-type]
    final, traces = built.run(variant).traced()
    assert all(error.within(TOLERANCE["nvfp4"]) for error in built.errors(traces))
    assert torch.equal(final, built.run(variant.split_serial())())
    assert torch.equal(final, built.run(variant.unsplit())())
    assert torch.equal(final, built.run(Variant("triton", receive="exact"))())


def test_rows_that_enter_are_what_the_inputs_drew() -> None:
    """The precision changes neither x nor the routing: cases of all precisions route alike."""
    one, other = (draw_inputs(workload(precision), CPU) for precision in ("bf16", "nvfp4"))
    assert torch.equal(one.x_TH, other.x_TH)
    assert torch.equal(one.logits_LTE, other.logits_LTE)
