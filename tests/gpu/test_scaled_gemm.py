"""The grouped GEMM of codes on a GPU: FP4 tensor cores where it has them, else the same kernel on expanded values."""

import pytest
import torch

from bench.cases import Case
from bench.correctness import TOLERANCE, errors
from bench.targets import Targets
from moe_impl.experts import base, nvfp4_rows
from moe_impl.links import LOCAL
from moe_impl.nvfp4 import NvFp4Tensor, decode_bf16
from moe_impl.options import Variant, Workload
from moe_impl.shapes import ModelShape, Router

pytestmark = pytest.mark.gpu

L, N, K = 5, 520, 1088
COUNTS = (0, 1, 300, 64, 131)
MODEL = ModelShape(2048, 1024, 64, 8, Router("sigmoid", True, 8, 4, True, 2.5), shared_experts=1)


@pytest.mark.parametrize("pairs_per_expert", [10, 50, 1000])
def test_products_are_exact_and_rows_past_the_end_are_not_read(pairs_per_expert: float) -> None:
    from moe_impl.kernels.nvfp4_scaled_gemm import blocked, nvfp4_scaled_gemm, scaled_tile_for

    generator = torch.Generator("cuda").manual_seed(3)
    weights = NvFp4Tensor.from_dense(torch.randn(L, N, K, generator=generator, device="cuda").bfloat16())
    x = torch.randn(sum(COUNTS) + 40, K, generator=generator, device="cuda").bfloat16()
    rows = nvfp4_rows.quantize_rows(x, torch.tensor(0.01, device="cuda"))
    rows[sum(COUNTS) :] = 0x7F
    ends = torch.tensor(COUNTS, device="cuda").cumsum(0).int()
    out = nvfp4_scaled_gemm(rows, blocked(weights), ends, scaled_tile_for(pairs_per_expert))
    start = 0
    for expert, end in enumerate(ends.tolist()):
        dense = decode_bf16(weights.packed[expert], weights.scales[expert]).double()
        exact = nvfp4_rows.expand_rows(rows[start:end], K).double() @ dense.t() * weights.global_scale[expert].double()
        # One rounding to bf16 (2^-9) and fp32 accumulation are all that may differ.
        error = (out[start:end].double() - exact).abs()
        assert not len(exact) or bool((error <= 2.0**-8 * exact.abs() + 1e-5 * exact.abs().max()).all()), expert
        start = end


def test_a_layer_of_codes_agrees_with_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "has_fp4", lambda capability: True)
    workload = Workload(MODEL, ep_size=8, layers=2, tokens=515, precision="nvfp4")
    target = Targets(torch.device("cuda")).build(Case(workload, LOCAL, ()))
    finals = {}
    for layout in ("packed", "per_expert"):
        variant = Variant("triton", worst_case_layout=layout)
        final, traces = target.run(variant, lambda position: None).traced()
        for layer, trace in enumerate(traces):
            error = errors(trace.y_TH, target.oracle(layer, trace), "nvfp4")
            assert error.within(TOLERANCE["nvfp4"]), (layout, layer, error)
        assert torch.equal(final, target.run(variant.split_serial(), lambda position: None)()), "the same tiles"
        finals[layout] = final
    assert torch.equal(finals["packed"], finals["per_expert"])
