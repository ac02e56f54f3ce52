"""Whole layers in FP8: x and h quantized row by row at run time, as the oracle does it."""

from dataclasses import replace
from typing import Any

import interpreted
import pytest
import torch
import torch.nn.functional as F
from decoded import dense
from drawn import normal
from small_layer import CPU, LOCAL, PACED, Built, workload
from torch import Tensor

from bench.correctness import TOLERANCE, errors
from moe_impl import layer
from moe_impl.experts import fp8_backend
from moe_impl.experts.fp8_backend import scaled_grouped_mm
from moe_impl.fp8 import Fp8Tensor, quantize_rows
from moe_impl.options import Link, Order, Receive, SplitPolicy, Variant, Workload
from moe_impl.overlap.schedule import ORDERS
from moe_impl.payload import PayloadDtype
from moe_impl.reference import SharedWeights, expert_outputs, moe_layer
from moe_impl.weights import draw_layer

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

T2O = Variant("torch")


def fp8(dispatch: PayloadDtype = "fp8", **more: Any) -> Workload:
    return replace(workload("fp8", **more), dispatch_dtype=dispatch)


def test_the_oracle_multiplies_what_codes_and_scales_stand_for() -> None:
    """Written out for one expert a token in float64, from dequantized weights and activations."""
    x, ids = normal(9, 64).bfloat16(), torch.arange(9)[:, None] % 3
    w13, w2 = (Fp8Tensor.from_dense(normal(3, *shape, seed=1).bfloat16() / 8) for shape in ((64, 64), (64, 32)))
    found = expert_outputs(x, ids, w13, w2, compute_dtype=torch.float64)[:, 0]

    def twice_rounded(values: Tensor) -> Tensor:
        codes, scale = quantize_rows(values.float())
        return codes.double() * scale.double()

    for token in range(9):
        expert = int(ids[token])
        codes13, codes2 = (w.codes[expert].double() * w.scales[expert, :, None].double() for w in (w13, w2))
        gate, up = (codes13 @ twice_rounded(x[token])).chunk(2)
        torch.testing.assert_close(found[token], codes2 @ twice_rounded(F.silu(gate) * up), rtol=1e-12, atol=1e-12)


def test_the_backend_on_a_cpu_multiplies_first_and_scales_then() -> None:
    codes, scale_P = quantize_rows(normal(10, 64))
    weights, ends = Fp8Tensor.from_dense(normal(3, 32, 64, seed=1)), torch.tensor([4, 4, 9], dtype=torch.int32)
    found = scaled_grouped_mm(codes, scale_P, weights, ends)
    exact = torch.cat(
        [
            (codes[span].double() * scale_P[span, None].double()) @ dense(weights)[expert].double().t()
            for expert, span in ((0, slice(0, 4)), (2, slice(4, 9)))
        ]
    )
    torch.testing.assert_close(found[:9].double(), exact, rtol=2**-8, atol=1e-5)
    assert found[9:].isnan().all(), "as they came"
    assert scaled_grouped_mm(codes[:0], scale_P[:0], weights, 0 * ends).shape == (0, 32)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("split_factor", [1, 2, 4])
@pytest.mark.parametrize("link", [LOCAL, PACED], ids=["local", "paced"])
@pytest.mark.parametrize("receive", ["worst_case", "exact"])
def test_every_variant_agrees_with_an_oracle_that_quantizes_alike(
    receive: Receive, link: Link, split_factor: int, order: Order
) -> None:
    built = Built(fp8(), link)
    _, traces = built.run(Variant("torch", split_factor=split_factor, order=order, receive=receive)).traced()
    assert all(error.within(TOLERANCE["fp8"]) for error in built.errors(traces))


@pytest.mark.parametrize("shared_experts", [0, 2])
def test_shared_experts_are_quantized_too(shared_experts: int) -> None:
    built = Built(fp8(shared_experts=shared_experts))
    shared = built.weights[0].shared
    assert isinstance(built.weights[0].w13, Fp8Tensor)
    assert (shared is None) == (shared_experts == 0)
    if shared is not None:
        assert isinstance(shared.w13, Fp8Tensor)
        assert (shared.w13.codes.shape, shared.w2.scales.shape) == ((1, 256, 64), (1, 64))  # type: ignore[union-attr]
    for split_factor in (1, 3):
        _, traces = built.run(Variant("torch", split_factor=split_factor)).traced()
        assert all(error.within(TOLERANCE["fp8"]) for error in built.errors(traces))


def of_dense_weights(built: Built, at: int, x_TH: Tensor) -> Tensor:
    """The same layer with the same weights, dequantized, and activations left alone."""
    weights, inputs, model = built.weights[at], built.inputs, built.work.model

    shared = None
    if weights.shared is not None:
        shared = SharedWeights(dense(weights.shared.w13), dense(weights.shared.w2))
    return moe_layer(
        x_TH, inputs.logits_LTE[at], dense(weights.w13), dense(weights.w2), inputs.router, model.top_k,
        selection_bias_E=inputs.bias_E, ep_size=built.work.ep_size, shared=shared,
    )  # fmt: skip


@pytest.mark.parametrize("shared_experts", [0, 1])
def test_activations_really_have_eight_bits(shared_experts: int) -> None:
    built = Built(fp8(shared_experts=shared_experts))
    _, traces = built.run(T2O).traced()
    for at, trace in enumerate(traces):
        assert 0.025 < errors(trace.y_TH, of_dense_weights(built, at, trace.x_TH)).relative < 0.06


@pytest.mark.parametrize("stage", ["quantize", "silu_mul"])
def test_a_scale_that_is_off_is_caught(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the rows, by a fifth: the scale of x, and that of h."""
    right = getattr(fp8_backend.fp8_rows, "quantize_rows" if stage == "quantize" else "silu_mul")

    def wrong(values: Tensor, more: Tensor | None) -> Any:
        found = right(values, more)
        scales = found.view(torch.float32)[:, 16:17] if stage == "quantize" else found[1]
        scales[::10] *= 1.2
        return found

    monkeypatch.setattr(fp8_backend, stage, wrong)
    built = Built(fp8())
    found = built.errors(built.run(T2O).traced()[1])
    assert not any(error.within(TOLERANCE["fp8"]) for error in found)


@pytest.mark.parametrize("shared_experts", [0, 1])
def test_rows_quantized_before_and_after_dispatch_give_the_same_bits(shared_experts: int) -> None:
    before, after = (Built(fp8(dispatch, shared_experts=shared_experts)) for dispatch in ("fp8", "bf16"))
    assert torch.equal(before.run(T2O)(), after.run(T2O)())
    assert torch.equal(before.run(T2O)(), after.run(Variant("torch", receive="exact"))())


def test_split_serial_and_overlapped_runs_give_the_same_bits() -> None:
    built = Built(fp8(shared_experts=1))
    serial = built.run(T2O.split_serial())()
    for order in ORDERS:
        assert torch.equal(built.run(Variant("torch", order=order))(), serial)


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
def test_an_empty_micro_batch_passes(receive: Receive) -> None:
    built = Built(fp8(tokens=3, shared_experts=1))
    variant = Variant("torch", split=SplitPolicy("ratio", 0.01), receive=receive)
    _, traces = built.run(variant).traced()
    assert all(error.within(TOLERANCE["fp8"]) for error in built.errors(traces))


def test_weights_are_the_bf16_ones_rounded() -> None:
    rounded, plain = (draw_layer(workload(precision), 1, CPU) for precision in ("fp8", "bf16"))
    for name in ("w13", "w2"):
        expected, found = getattr(plain, name).float(), dense(getattr(rounded, name))
        assert 0.015 < (found - expected).norm() / expected.norm() < 0.04


@interpreted.WHERE
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:overflow", "ignore:invalid value")  # numpy's
@pytest.mark.parametrize("dispatch", ["fp8", "bf16"])
def test_a_layer_of_kernels_agrees_with_the_oracle(dispatch: PayloadDtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a GPU's kernels but the matmul, interpreted."""
    from moe_impl.kernels.gather_fp8 import gather_fp8
    from moe_impl.kernels.quantize_fp8 import quantize_fp8
    from moe_impl.kernels.silu_mul_fp8 import silu_mul_fp8
    from moe_impl.transport.cuda_rows import LocalCuda

    monkeypatch.setattr(layer, "row_ops", lambda device, of=layer.row_ops: of(torch.device("cuda")))
    for name, kernel in (("quantize", quantize_fp8), ("gather", gather_fp8), ("silu_mul", silu_mul_fp8)):
        monkeypatch.setattr(fp8_backend, name, kernel)
    work = replace(fp8(dispatch, tokens=7, shared_experts=1), layers=1)
    built = Built(work, over=LocalCuda())
    final, traces = built.run(T2O).traced()
    assert all(error.within(TOLERANCE["fp8"]) for error in built.errors(traces))
    assert torch.equal(final, built.run(T2O.split_serial())())
