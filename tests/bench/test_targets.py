"""Weights are drawn once, the oracle answers once, and a link must be able to do what it models."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_sweep import small_case

from bench import targets
from bench.targets import LinkCannotSustainError, Targets
from moe_impl.options import Link, LinkTime, Variant, Workload
from moe_impl.weights import LayerWeights, draw_layer

CPU = torch.device("cpu")
PACED = Link("paced", 4, (LinkTime("dispatch", 1e-3, 1e9), LinkTime("combine", 2e-3, 1e9)))


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
    answer = targets.moe_layer
    monkeypatch.setattr(targets, "moe_layer", lambda *args, **more: asked.append(1) or answer(*args, **more))
    case = small_case()
    target = Targets(CPU).build(case)
    for variant in case.variants[1:]:  # T2s and T2o: the same bits, hence the same inputs of every layer
        _, traces = target.run(variant, lambda position: None).traced()
        for layer, trace in enumerate(traces):
            target.oracle(layer, trace)
    assert len(asked) == 2
    target.oracle(0, replace(traces[0], x_TH=traces[0].x_TH + 1))
    assert len(asked) == 3


def taking(**seconds: float) -> Callable[[Callable[[], object]], float]:
    """A clock that reads the given time for each direction (five transfers each), the slower ones first."""
    script = [seconds[direction] * slower for direction in ("dispatch", "combine") for slower in (9, 5, 3, 2, 1)]

    def time_s(call: Callable[[], object]) -> float:
        call()
        return script.pop(0)

    return time_s


def test_a_link_that_keeps_its_times_passes_by_its_fastest_transfer() -> None:
    Targets(CPU).build(replace(small_case(), link=PACED)).check_link(taking(dispatch=1.01e-3, combine=2.01e-3))


@pytest.mark.parametrize(("dispatch_s", "combine_s", "slow"), [(9e-3, 2e-3, "dispatch"), (1e-3, 9e-3, "combine")])
def test_a_link_that_is_slower_than_its_model_is_refused_by_direction(
    dispatch_s: float, combine_s: float, slow: str
) -> None:
    target = Targets(CPU).build(replace(small_case(), link=PACED))
    with pytest.raises(
        LinkCannotSustainError, match=rf"link cannot sustain the model: {slow} of \d+ bytes takes 9000 us"
    ):
        target.check_link(taking(dispatch=dispatch_s, combine=combine_s))


def test_a_local_link_models_nothing_that_could_be_missed() -> None:
    def never(call: Callable[[], object]) -> float:
        raise AssertionError("a local link needs no transfer")

    Targets(CPU).build(small_case()).check_link(never)


def test_a_cpu_has_no_memory_figures_and_nothing_to_poison() -> None:
    target = Targets(CPU).build(small_case())
    assert target.watching_memory(lambda: 42) == (42, None)
    target.poison(Variant("torch"))


def test_the_promises_are_the_backends() -> None:
    target = Targets(CPU).build(small_case())
    assert target.deterministic(Variant("torch"))
    assert not target.batch_invariant(Variant("torch"))
