"""Weights are drawn once, the oracle answers once, and a link must be able to do what it models."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_sweep import small_case

from bench import oracle, targets
from bench.cases import Case
from bench.targets import LinkCannotSustainError, Target, Targets
from moe_impl.links import HOST_LINK, LOCAL
from moe_impl.options import Link, LinkTime, Variant, Workload
from moe_impl.shapes import ModelShape
from moe_impl.transport.cpu_rows import LocalCpu
from moe_impl.weights import LayerWeights, draw_layer

CPU = torch.device("cpu")
PACED = Link("paced", 4, (LinkTime("dispatch", 1e-3, 1e9), LinkTime("combine", 2e-3, 1e9)))
NODES = replace(PACED, copies="node")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """(precision, tokens, layer) of every layer's weights that were drawn."""
    seen: list[tuple[str, int, int]] = []

    def counting(workload: Workload, layer: int, device: torch.device) -> LayerWeights:
        seen.append((workload.precision, workload.tokens, layer))
        return draw_layer(workload, layer, device)

    monkeypatch.setattr(targets, "draw_layer", counting)
    return seen


def test_weights_are_drawn_once_for_all_cases_that_share_them(drawn: list[tuple[str, int, int]]) -> None:
    shared = Targets(CPU)
    for case in (small_case(16), small_case(32), replace(small_case(16), link=PACED)):
        shared.build(case)
    assert drawn == [("nvfp4-w4a16", 16, 0), ("nvfp4-w4a16", 16, 1)]


def test_weights_are_drawn_anew_for_another_precision_or_seed(drawn: list[tuple[str, int, int]]) -> None:
    shared, case = Targets(CPU), small_case(16)
    shared.build(case)
    shared.build(replace(case, workload=replace(case.workload, precision="bf16")))
    shared.build(replace(case, workload=replace(case.workload, precision="bf16", seed=1)))
    assert [precision for precision, _, _ in drawn] == ["nvfp4-w4a16"] * 2 + ["bf16"] * 4


def test_a_backend_lays_out_a_layers_weights_once_for_all_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    from moe_impl.experts.torch_backend import DenseExperts, TorchExperts

    prepared: list[LayerWeights] = []
    prepare = TorchExperts.prepare

    def counting(self: TorchExperts, weights: LayerWeights) -> DenseExperts:
        prepared.append(weights)
        return prepare(self, weights)

    monkeypatch.setattr(TorchExperts, "prepare", counting)
    shared = Targets(CPU)
    for case in (small_case(16), small_case(32)):
        target = shared.build(case)
        for variant in case.variants:
            target.run(variant, lambda position: None)
    assert len(prepared) == 2


def test_equal_inputs_are_answered_once_by_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answer = oracle.moe_layer
    monkeypatch.setattr(oracle, "moe_layer", lambda *args, **more: asked.append(1) or answer(*args, **more))
    case = small_case()
    target = Targets(CPU).build(case)
    for variant in case.variants[1:]:  # T2s and T2o: the same bits, hence the same inputs of every layer
        _, traces = target.run(variant, lambda position: None).traced()
        for layer, trace in enumerate(traces):
            target.oracle(layer, trace)
    assert len(asked) == 2
    target.oracle(0, replace(traces[0], x_TH=traces[0].x_TH + 1))
    assert len(asked) == 3


def taking(dispatch: float, combine: float) -> Callable[[Callable[[], object]], float]:
    """A clock that reads these seconds of each direction after 24 slower ones, and goes on so: what does not keep its
    millisecond (dispatch) is not followed by the other."""
    slower = (*[9] * 20, 5, 3, 2, 1.5, 1)
    script = [seconds * factor for seconds in (dispatch, combine) for factor in slower]
    read = iter(script if dispatch < 1.02e-3 else script[: len(slower)])
    last = 0.0

    def time_s(call: Callable[[], object]) -> float:
        nonlocal last
        call()
        last = next(read, last)
        return last

    return time_s


def as_if_on_a_gpu(case: Case) -> Target:
    """Copies on the CPU, judged as a GPU's."""
    target = Targets(CPU).build(case)
    target.device = torch.device("cuda")
    return target


def test_a_slow_link_fails_no_case_on_a_cpu() -> None:
    def never(call: Callable[[], object]) -> float:
        raise AssertionError("a CPU's link is not timed")

    Targets(CPU).build(replace(small_case(), link=PACED)).check_link(never)


def test_a_link_that_keeps_its_times_passes_by_its_fastest_transfer() -> None:
    as_if_on_a_gpu(replace(small_case(), link=PACED)).check_link(taking(dispatch=1.01e-3, combine=2.01e-3))


@pytest.mark.parametrize(("dispatch_s", "combine_s", "slow"), [(9e-3, 2e-3, "dispatch"), (1e-3, 9e-3, "combine")])
def test_a_link_that_is_slower_than_its_model_is_refused_by_direction(
    dispatch_s: float, combine_s: float, slow: str
) -> None:
    target = as_if_on_a_gpu(replace(small_case(), link=PACED))
    with pytest.raises(
        LinkCannotSustainError, match=rf"link cannot sustain the model: {slow} of \d+ bytes takes 9000 us"
    ):
        target.check_link(taking(dispatch=dispatch_s, combine=combine_s))


def test_a_link_that_counts_node_copies_is_held_to_those() -> None:
    """16 ranks, two nodes: with one expert a rank every token goes to 2 ranks, and to 1 or 2 nodes."""
    case = small_case()
    workload = replace(case.workload, model=ModelShape(64, 64, 16, 2), ep_size=16)
    by_rank, by_node = (as_if_on_a_gpu(Case(workload, link, case.variants)) for link in (PACED, NODES))
    found = []
    for target in (by_rank, by_node):
        with pytest.raises(LinkCannotSustainError) as refused:
            target.check_link(taking(dispatch=9e-3, combine=9e-3))
        found.append(int(re.search(r"of (\d+) bytes", str(refused.value))[1]))  # type: ignore[index]
    row_bytes = workload.payload_row_bytes("combine")
    assert found[0] == 2 * workload.tokens * row_bytes
    assert workload.tokens * row_bytes < found[1] < found[0]


@pytest.mark.parametrize("link", [LOCAL, HOST_LINK], ids=["local", "host_link"])
def test_a_link_that_models_nothing_could_not_miss_it(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(call: Callable[[], object]) -> float:
        raise AssertionError("such a link needs no transfer")

    monkeypatch.setattr(targets, "transport", lambda *arguments: LocalCpu())
    Targets(CPU).build(replace(small_case(), link=link)).check_link(never)


def test_a_cpu_has_no_memory_figures_and_nothing_to_poison() -> None:
    target = Targets(CPU).build(small_case())
    assert target.watching_memory(lambda: 42) == (42, None)
    target.poison(Variant("torch"))


def test_the_promises_are_the_backends() -> None:
    target = Targets(CPU).build(small_case())
    assert target.deterministic(Variant("torch"))
    assert not target.batch_invariant(Variant("torch"))
