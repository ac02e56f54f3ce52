import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from decoded import dense
from golden_file import META, e4m3, floats, tensor
from torch import Tensor

from moe_impl.nvfp4 import NvFp4Tensor
from moe_impl.reference import (
    ActivationQuantization,
    combine_by_rank,
    combine_exact,
    expert_outputs,
    moe_layer,
    next_input,
)
from moe_impl.routing import select_experts
from moe_impl.shapes import Router

HIDDEN, INTERMEDIATE, LOCAL, TOKENS, TOP_K = 32, 48, 4, 21, 3


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def draw(num_experts: int = 2 * LOCAL) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, w13, w2, and a routing over ``num_experts`` global ids."""
    rng = torch.Generator().manual_seed(7)
    x = torch.randn(TOKENS, HIDDEN, generator=rng).bfloat16()
    w13 = (torch.randn(LOCAL, 2 * INTERMEDIATE, HIDDEN, generator=rng) * HIDDEN**-0.5).bfloat16()
    w2 = (torch.randn(LOCAL, HIDDEN, INTERMEDIATE, generator=rng) * INTERMEDIATE**-0.5).bfloat16()
    ids, weights = select_experts(torch.randn(TOKENS, num_experts, generator=rng), Router(), TOP_K)
    return x, w13, w2, ids, weights


def golden_weights(case: str, name: str) -> NvFp4Tensor:
    return NvFp4Tensor(
        tensor(f"{case}/{name}_weight"), e4m3(f"{case}/{name}_weight_scale"), tensor(f"{case}/{name}_weight_scale_2")
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
@pytest.mark.parametrize("mode", ["w4a16", "w4a4/modelopt", "w4a4/kernel"])
@pytest.mark.parametrize("case", META["moe_cases"])
def test_moe_layer_gives_the_golden_outputs(case: str, mode: str, dtype: torch.dtype, tolerance: float) -> None:
    activations = None
    if mode != "w4a16":
        rule = mode.removeprefix("w4a4/")
        activations = ActivationQuantization(tensor(f"{case}/w13_input_scale"), tensor(f"{case}/w2_input_scale"), rule)
    y = moe_layer(
        floats(f"{case}/x_bits").bfloat16(),
        tensor(f"{case}/router_logits").to(dtype),
        golden_weights(case, "w13"),
        golden_weights(case, "w2"),
        Router(),
        int(tensor(f"{case}/top_k")),
        compute_dtype=dtype,
        activations=activations,
    )
    assert y.dtype == dtype
    assert relative_error(y, tensor(f"{case}/out_{mode}")) < tolerance


@pytest.mark.parametrize("case", META["moe_cases"])
def test_the_checkers_adapter_tells_its_two_modes_apart(case: str) -> None:
    adapter = runpy.run_path(str(Path(__file__).parents[1] / "nvfp4_adapter.py"))
    w13, w2 = golden_weights(case, "w13"), golden_weights(case, "w2")
    states = floats(f"{case}/x_bits").bfloat16(), tensor(f"{case}/router_logits"), int(tensor(f"{case}/top_k"))
    weights = w13.packed, w13.scales, w13.global_scale, w2.packed, w2.scales, w2.global_scale
    scales = {name: tensor(f"{case}/{name}") for name in ("w13_input_scale", "w2_input_scale")}
    assert relative_error(adapter["moe"](*states, *weights), tensor(f"{case}/out_w4a16")) < 1e-14
    assert relative_error(adapter["moe"](*states, *weights, **scales), tensor(f"{case}/out_w4a4/modelopt")) < 1e-14


def test_expert_outputs_agree_with_one_token_at_a_time() -> None:
    x, w13, w2, ids, _ = draw()
    outputs = expert_outputs(x, ids, w13, w2, compute_dtype=torch.float64)
    assert (outputs.shape, outputs.dtype) == ((TOKENS, TOP_K, HIDDEN), torch.float64)
    for token in range(TOKENS):
        for slot in range(TOP_K):
            expert = int(ids[token, slot]) % LOCAL
            gate_up = w13[expert].double() @ x[token].double()
            h = gate_up[:INTERMEDIATE] / (1 + torch.exp(-gate_up[:INTERMEDIATE])) * gate_up[INTERMEDIATE:]
            torch.testing.assert_close(outputs[token, slot], w2[expert].double() @ h)


def test_ids_rotated_by_whole_ranks_give_the_same_outputs() -> None:
    x, w13, w2, ids, _ = draw()
    assert torch.equal(expert_outputs(x, (ids + LOCAL) % (2 * LOCAL), w13, w2), expert_outputs(x, ids, w13, w2))


def test_nvfp4_weights_compute_as_their_dequantised_values_do() -> None:
    x, w13, w2, ids, _ = draw()
    packed13, packed2 = NvFp4Tensor.from_dense(w13), NvFp4Tensor.from_dense(w2)
    dense13, dense2 = dense(packed13), dense(packed2)
    for dtype in (torch.float32, torch.float64):
        found = expert_outputs(x, ids, packed13, packed2, compute_dtype=dtype)
        assert relative_error(found, expert_outputs(x, ids, dense13, dense2, compute_dtype=dtype)) < 1e-6


def test_float32_stays_close_to_float64() -> None:
    x, w13, w2, ids, _ = draw()
    exact = expert_outputs(x, ids, w13, w2, compute_dtype=torch.float64)
    assert relative_error(expert_outputs(x, ids, w13, w2), exact) < 1e-6


def test_expert_outputs_refuse_to_compute_in_bf16() -> None:
    x, w13, w2, ids, _ = draw()
    with pytest.raises(ValueError, match="bfloat16"):
        expert_outputs(x, ids, w13, w2, compute_dtype=torch.bfloat16)


def bf16(value: np.float32) -> np.float32:
    """Nearest bf16, ties to even, by its bits."""
    bits = int(np.float32(value).view(np.uint32))
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.uint32(bits).view(np.float32)


@pytest.mark.parametrize("ep_size", [1, 2, 4, 8])
def test_combine_by_rank_agrees_bit_for_bit_with_loops(ep_size: int) -> None:
    num_experts = 8
    _, _, _, ids, weights = draw(num_experts)
    outputs = torch.randn(TOKENS, TOP_K, HIDDEN, generator=torch.Generator().manual_seed(1))
    found = combine_by_rank(outputs, ids, weights, num_experts, ep_size)
    assert found.dtype == torch.bfloat16
    expected = np.zeros((TOKENS, HIDDEN), np.float32)
    for token, column in np.ndindex(TOKENS, HIDDEN):
        total = np.float32(0)
        for rank in range(ep_size):
            slots = [k for k in range(TOP_K) if int(ids[token, k]) // (num_experts // ep_size) == rank]
            partial = np.float32(0)
            for slot in slots:
                weight = np.float32(weights[token, slot].item())
                partial = partial + weight * bf16(np.float32(outputs[token, slot, column].item()))
            if slots:
                total = total + bf16(partial)
        expected[token, column] = bf16(total)
    assert np.array_equal(found.float().numpy(), expected)


def test_more_ranks_round_differently_but_stay_close() -> None:
    x, w13, w2, ids, weights = draw()
    outputs = expert_outputs(x, ids, w13, w2)
    one, eight = (combine_by_rank(outputs, ids, weights, 2 * LOCAL, ranks) for ranks in (1, 2 * LOCAL))
    assert (one != eight).any()
    exact = combine_exact(outputs.double(), weights)
    assert relative_error(one, exact) < 5e-3
    assert relative_error(eight, exact) < 5e-3


def test_combine_by_rank_refuses_ranks_that_do_not_divide_the_experts() -> None:
    _, _, _, ids, weights = draw()
    with pytest.raises(ValueError, match="3 does not divide 8"):
        combine_by_rank(torch.zeros(TOKENS, TOP_K, HIDDEN), ids, weights, 8, 3)


def test_moe_layer_on_ranks_is_its_steps_in_a_row() -> None:
    x, w13, w2, _, _ = draw()
    router = Router(scoring="sigmoid", selection_bias=True, num_groups=4, top_groups=2, scaling_factor=2.5)
    logits, bias = torch.randn(TOKENS, 2 * LOCAL), torch.randn(2 * LOCAL)
    y = moe_layer(x, logits, w13, w2, router, TOP_K, selection_bias_E=bias, ep_size=2)
    ids, weights = select_experts(logits, router, TOP_K, bias)
    assert torch.equal(y, combine_by_rank(expert_outputs(x, ids, w13, w2), ids, weights, 2 * LOCAL, 2))


def test_next_input_adds_y_at_unit_rms() -> None:
    x = torch.zeros(2, 4, dtype=torch.bfloat16)
    y = torch.tensor([[3.0, -3.0, 3.0, -3.0], [0.0, 0.0, 0.0, 8.0]]).bfloat16()
    assert next_input(x + 1, y).tolist() == [[2.0, 0.0, 2.0, 0.0], [1.0, 1.0, 1.0, 3.0]]


def test_next_input_of_a_zero_output_is_the_input() -> None:
    x = torch.randn(3, 16).bfloat16()
    assert torch.equal(next_input(x, torch.zeros_like(x)), x)
