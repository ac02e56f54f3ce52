"""Every variant of a layer stack gives the oracle's answer, split or not, in any order; a planted bug is caught.

Uninitialised memory is NaN here.
"""

from contextlib import contextmanager
from dataclasses import fields, replace

import interpreted
import pytest
import torch
from small_layer import LOCAL, PACED, Built, workload
from torch import Tensor

from bench import correctness
from moe_impl import layer, rows
from moe_impl.inputs import draw_inputs
from moe_impl.options import Link, Order, Precision, Receive, Variant
from moe_impl.overlap.schedule import ORDERS, Op
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.transport.cpu_rows import LocalCpu

pytestmark = pytest.mark.usefixtures("uninitialised_memory_is_nan")

T2O = Variant("torch")
PRECISIONS = ("bf16", "nvfp4-w4a16")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("split_factor", [1, 2, 4])
@pytest.mark.parametrize("link", [LOCAL, PACED], ids=["local", "paced"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_layer_of_every_variant_agrees_with_the_oracle(
    precision: Precision, link: Link, split_factor: int, order: Order
) -> None:
    built = Built(workload(precision), link)  # 21 tokens: no split is even
    final, traces = built.run(Variant("torch", split_factor=split_factor, order=order)).traced()
    assert len(traces) == 2
    assert all(error.within(correctness.TOLERANCE[precision]) for error in built.errors(traces))
    step = traces[-1].y_TH.float() / traces[-1].y_TH.float().square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(final.float(), traces[-1].x_TH.float() + step, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_split_serial_and_split_overlapped_give_the_same_bits(precision: Precision) -> None:
    built = Built(workload(precision))
    serial = built.run(T2O.split_serial())()
    for order in ORDERS:
        assert torch.equal(built.run(Variant("torch", order=order))(), serial)


def test_split_and_unsplit_agree_as_backends_must() -> None:
    built = Built(workload())
    split, unsplit = (built.run(one).traced()[1][0].y_TH for one in (T2O, T2O.unsplit()))
    assert correctness.errors(split, unsplit).within(correctness.AGREEMENT["bf16"])


def test_a_traced_run_gives_what_a_plain_one_gives() -> None:
    built = Built(workload())
    assert torch.equal(built.run(T2O).traced()[0], built.run(T2O)())


@pytest.mark.parametrize("order", ORDERS)
def test_ops_are_issued_in_the_schedules_order_inside_their_context(order: Order) -> None:
    seen: list[object] = []
    run = Built(workload()).run(Variant("torch", order=order), progress=seen.append)

    @contextmanager
    def around(position: int, op: Op):  # type: ignore[no-untyped-def]
        seen.append(op)
        yield
        seen.append("done")

    run(around)
    assert seen == [item for position, op in enumerate(run.schedule.ops) for item in (position, op, "done")]


def test_every_order_issues_differently() -> None:
    built = Built(workload(shared_experts=1))
    issued = {tuple(map(str, built.run(Variant("torch", order=order)).schedule.ops)) for order in ORDERS}
    assert len(issued) == len(ORDERS)


def test_a_micro_batch_holds_nothing_but_its_output_after_the_last_op() -> None:
    built = Built(workload())
    run = built.run(T2O)
    states = run._run(built.stages.bodies, None)
    for state in states:
        held = {spec.name for spec in fields(state) if getattr(state, spec.name) is not None}
        assert held == {"tokens", "x_TH", "y_TH"}


def skipping_the_first_slot(outputs: Tensor, pairs: rows.Pairs, sent: rows.SentRows, partial: Tensor) -> None:
    pair_MK = pairs.pair_MK.clone()
    pair_MK[:, 0] = -1
    rows.reduce_rows(outputs, rows.Pairs(pairs.ends_L, pairs.row_P, pair_MK), sent, partial)


def rounding_the_weights(outputs: Tensor, pairs: rows.Pairs, sent: rows.SentRows, partial: Tensor) -> None:
    coarse = sent.weights_MK.mul(16).round().div(16)
    rows.reduce_rows(outputs, pairs, replace(sent, weights_MK=coarse), partial)


@pytest.mark.parametrize("bug", [skipping_the_first_slot, rounding_the_weights])
def test_a_wrong_partial_sum_is_caught(bug: object, monkeypatch: pytest.MonkeyPatch) -> None:
    good = layer.row_ops(torch.device("cpu"))
    bad = replace(good, reduce_rows=bug)
    monkeypatch.setattr(layer, "row_ops", lambda device: bad)
    built = Built(workload())
    errors = built.errors(built.run(T2O).traced()[1])
    assert not any(error.within(correctness.TOLERANCE["bf16"]) for error in errors)


def test_a_stage_that_reads_a_buffer_before_it_is_written_is_caught() -> None:
    built = Built(workload())
    built.stages.bodies[Stage.COMBINE] = lambda state, layer: None
    errors = built.errors(built.run(T2O).traced()[1])
    assert not any(error.within(correctness.TOLERANCE["bf16"]) for error in errors)


def test_uniform_routing_drops_groups_and_bias_and_keeps_the_weights_rule() -> None:
    model = workload()
    uniform = draw_inputs(replace(model, routing="uniform"), torch.device("cpu"))
    assert uniform.bias_E is None
    assert (uniform.router.num_groups, uniform.router.selection_bias) == (1, False)
    assert (uniform.router.scoring, uniform.router.scaling_factor) == ("sigmoid", 2.5)
    assert torch.equal(uniform.logits_LTE, draw_inputs(model, torch.device("cpu")).logits_LTE)


class HostSized(LocalCpu):
    """A transport that copies as many rows as the host was told: the rest stays NaN."""

    host_sized = True

    def __init__(self) -> None:
        self.told: list[tuple[int | None, int]] = []

    def dispatch(self, x_TH: Tensor, rows: rows.SentRows, received_MH: Tensor) -> None:
        self.told.append((rows.known_rows, int(rows.num_rows)))
        received_MH[: rows.known_rows] = x_TH[rows.token_M[: rows.known_rows].long()]

    def combine(self, partial_MH: Tensor, rows: rows.SentRows, returned_MH: Tensor) -> None:
        self.told.append((rows.known_rows, int(rows.num_rows)))
        returned_MH[: rows.known_rows] = partial_MH[: rows.known_rows]


@pytest.mark.parametrize("receive", ["worst_case", "exact"])
@pytest.mark.parametrize("split_factor", [1, 2, 4])
def test_a_transport_whose_copies_the_host_sizes_is_told_the_true_number_of_rows(
    split_factor: int, receive: Receive
) -> None:
    sized = HostSized()
    built = Built(workload(), over=sized)
    variant = Variant("torch", split_factor=split_factor, receive=receive)
    assert torch.equal(built.run(variant)(), Built(workload()).run(variant)())
    assert len(sized.told) == 2 * 2 * split_factor
    assert all(known == true > 0 for known, true in sized.told)


def test_other_transports_learn_nothing_from_the_pre_drawn_routing() -> None:
    built = Built(workload())
    built.run(T2O)
    state = built.stages.start([slice(0, 5)])[0]
    built.stages.bodies[Stage.ROUTE](state, 0)
    assert state.rows is not None
    assert state.rows.known_rows is None


@interpreted.WHERE
@pytest.mark.parametrize("experts", ["torch", "triton"])
def test_a_layer_of_kernels_agrees_with_the_oracle(experts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's row kernels, transport and backend, interpreted; bf16 results are truncated, hence the wider bound."""
    from moe_impl.experts.base import backend
    from moe_impl.transport.cuda_rows import LocalCuda

    monkeypatch.setattr(layer, "row_ops", lambda device, of=layer.row_ops: of(torch.device("cuda")))
    built = Built(workload("nvfp4-w4a16", tokens=9), experts=backend(experts, "nvfp4-w4a16", 1.5), over=LocalCuda())
    serial = built.run(Variant(experts).split_serial())()  # type: ignore[arg-type]
    final, traces = built.run(Variant(experts)).traced()  # type: ignore[arg-type]
    assert all(error.within(2e-2) for error in built.errors(traces))
    assert torch.equal(final, serial)


@pytest.mark.parametrize("split_factor", [1, 2, 4])
@pytest.mark.parametrize("order", ORDERS)
def test_exact_receive_gives_the_bits_of_worst_case_from_buffers_of_the_size_that_came(
    split_factor: int, order: Order
) -> None:
    built = Built(workload())
    worst = built.run(Variant("torch", split_factor=split_factor, order=order))()
    exact = built.run(Variant("torch", split_factor=split_factor, order=order, receive="exact"))
    sizes: list[tuple[int, int, int]] = []
    gemm2 = exact._stages.bodies[Stage.GEMM2]

    def spying(state: UbatchState, layer: int) -> None:
        assert state.rows is not None
        assert state.pairs is not None
        sizes.append((state.rows.capacity, state.pairs.row_P.shape[0], int(state.pairs.ends_L[-1])))
        gemm2(state, layer)

    exact._stages.bodies[Stage.GEMM2] = spying
    assert torch.equal(exact(), worst)
    assert len(sizes) == split_factor * built.work.layers
    for rows_held, pairs_held, pairs_used in sizes:
        assert pairs_held == pairs_used
        assert rows_held < built.work.ep_size * built.work.tokens / split_factor
