"""No token, no row, no pair: every kernel wrapper answers without starting a grid of nothing."""

import interpreted
import pytest
import torch
from small_layer import Built, workload
from torch import Tensor

from moe_impl import layer, rows
from moe_impl.options import LinkTime, Receive, SplitPolicy, Variant
from moe_impl.shapes import Router

pytestmark = [interpreted.WHERE, pytest.mark.usefixtures("uninitialised_memory_is_nan")]

H, K, R, LOCAL = 64, 2, 4, 3
NOTHING = torch.zeros(0, H).bfloat16()


def no_rows() -> rows.SentRows:
    return rows.plan_rows(torch.zeros(0, K, dtype=torch.int32), torch.zeros(0, K), R * LOCAL, R)


@pytest.fixture
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid of 0 programs is an error on a GPU, and one of 1 is a wasted launch: neither may be asked for."""
    from triton.runtime.interpreter import InterpretedFunction

    def refuse(self: object, grid: object) -> None:
        raise AssertionError(f"launched over {grid}")

    monkeypatch.setattr(InterpretedFunction, "__getitem__", refuse)


@pytest.mark.usefixtures("no_launch")
def test_route_tokens_lays_out_nothing() -> None:
    from moe_impl.kernels.route_tokens import route_tokens

    plain = layer.route_plain(torch.zeros(0, R * LOCAL), Router(), K, None, R * LOCAL, R)
    found = route_tokens(torch.zeros(0, R * LOCAL), Router(), K, None, R * LOCAL, R)
    for name in ("row_TR", "token_M", "experts_MK", "weights_MK", "num_rows", "num_pairs", "num_node_rows"):
        one, other = getattr(found, name), getattr(plain, name)
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
        assert torch.equal(one, other), name
    assert found.num_rows.tolist() == [0]


@pytest.mark.usefixtures("no_launch")
def test_row_kernels_move_nothing() -> None:
    from moe_impl.kernels.add_normalized import add_normalized
    from moe_impl.kernels.gather_pairs import gather_pairs
    from moe_impl.kernels.merge_rows import merge_rows
    from moe_impl.kernels.move_rows import move_rows
    from moe_impl.kernels.reduce_rows import reduce_rows
    from moe_impl.kernels.sort_pairs import sort_pairs

    sent = no_rows()
    plain, pairs = rows.plan_pairs(sent, LOCAL), sort_pairs(sent, LOCAL)
    for name in ("ends_L", "row_P", "pair_MK"):
        one, other = getattr(pairs, name), getattr(plain, name)
        assert (one.shape, one.dtype) == (other.shape, other.dtype), name
    assert pairs.ends_L.tolist() == [0] * LOCAL
    move_rows(NOTHING, NOTHING, sent.num_rows, sent.token_M)
    move_rows(NOTHING, NOTHING, sent.num_rows)
    assert gather_pairs(NOTHING, pairs).shape == (0, H)
    reduce_rows(NOTHING, pairs, sent, NOTHING)
    assert add_normalized(NOTHING, NOTHING).shape == (0, H)
    y_TH, next_TH = merge_rows(NOTHING, NOTHING, sent)
    assert y_TH.shape == next_TH.shape == (0, H)


@pytest.mark.usefixtures("no_launch")
def test_expert_kernels_compute_nothing() -> None:
    from moe_impl.kernels.nvfp4_fragments import repack
    from moe_impl.kernels.nvfp4_grouped_gemm import nvfp4_grouped_gemm, tile_for
    from moe_impl.kernels.silu_mul import silu_mul
    from moe_impl.nvfp4 import NvFp4Tensor

    ends_L = torch.zeros(LOCAL, dtype=torch.int32)
    weights = repack(NvFp4Tensor.from_dense(torch.ones(LOCAL, 2 * H, H)))
    gate_up: Tensor = nvfp4_grouped_gemm(NOTHING, weights, ends_L, tile_for(0))
    assert gate_up.shape == (0, 2 * H)
    assert silu_mul(gate_up, ends_L).shape == (0, H)


def test_wrong_widths_are_refused_even_without_rows() -> None:
    from moe_impl.kernels.move_rows import move_rows

    with pytest.raises(ValueError, match="row widths differ: 64 and 32"):
        move_rows(NOTHING, torch.zeros(0, 32).bfloat16(), torch.zeros(1, dtype=torch.int32))


def test_a_paced_transfer_of_nothing_is_launched_for_its_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    from moe_impl.kernels import paced_link

    grids: list[tuple[int]] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int]):  # type: ignore[no-untyped-def]
            grids.append(grid)
            return lambda *args, **more: None

    monkeypatch.setattr(paced_link, "paced_link_kernel", Kernel())
    sent, state = no_rows(), torch.zeros(4, dtype=torch.int64)
    paced_link.paced_move(NOTHING, NOTHING, sent.num_rows, state, LinkTime("dispatch", 1e-6, 1e9), 3, sent.token_M)
    assert grids == [(3,)]


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("experts", ["torch", "triton"])
def test_a_layer_of_kernels_takes_an_empty_micro_batch(
    experts: str, receive: Receive, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moe_impl.experts.base import backend
    from moe_impl.transport.cuda_rows import LocalCuda

    monkeypatch.setattr(layer, "row_ops", lambda device, of=layer.row_ops: of(torch.device("cuda")))
    built = Built(workload("nvfp4-w4a16", tokens=4), experts=backend(experts, "nvfp4-w4a16", 1.5), over=LocalCuda())  # type: ignore[arg-type]
    empty_first = Variant(experts, receive=receive, split=SplitPolicy("ratio", 0.1))  # type: ignore[arg-type]
    run = built.run(empty_first)
    assert run._slices == [slice(0, 0), slice(0, 4)]
    final, traces = run.traced()
    assert all(error.within(2e-2) for error in built.errors(traces))
    assert torch.equal(final, built.run(empty_first.unsplit())())
