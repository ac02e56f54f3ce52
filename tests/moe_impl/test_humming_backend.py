"""Backend ``humming``, our side of it: what it hands to the library, which a stub in plain torch stands for."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_layer import Built, workload
from torch import Tensor

from moe_impl.experts import humming_backend
from moe_impl.experts.humming_backend import HummingExperts, kernel_for
from moe_impl.nvfp4 import decode_bf16
from moe_impl.options import Variant

L, PAIRS_PER_TOKEN = 2, 1.5


@dataclass(frozen=True)
class Config:
    """Stands for the library's LayerConfig."""

    num_experts: int
    shape_n: int
    shape_k: int

    def to_str(self) -> str:
        return repr(self)


@dataclass
class Stub:
    """The library on a CPU. Its "layout" is the one it is given; each launch is checked and kept."""

    asked: list[int] = field(default_factory=list)
    """Rows in all for which a kernel was chosen."""
    prepared: list[dict[str, Any]] = field(default_factory=list)
    launches: list[dict[str, Any]] = field(default_factory=list)

    def lay_out(
        self, tensors: dict[str, Tensor], shape_n: int, shape_k: int, num_experts: int, **more: Any
    ) -> tuple[Config, dict[str, Tensor]]:
        assert more["torch_dtype"] == torch.bfloat16
        assert more["weight_schema"] == "modelopt nvfp4"
        assert tensors["weight"].dtype == torch.int32
        assert tensors["weight"].shape == (num_experts, shape_n, shape_k // 8)
        assert tensors["weight_scale"].shape == (num_experts, shape_n, shape_k // 16)
        assert tensors["weight_scale_2"].shape == (num_experts,)
        return Config(num_experts, shape_n, shape_k), tensors

    def choose(self, config: Config, shape_m: int, gemm_type: str, device: torch.device) -> dict[str, Any]:
        self.asked.append(shape_m)
        return {"use_pdl": True, "num_stages": 4}

    def prepare(self, config: str, compute: dict[str, Any], tuning: dict[str, Any], device: torch.device) -> Tensor:
        self.prepared.append(compute | tuning)
        return torch.tensor([0, 1 << 30, len(self.prepared), 0])

    def launch(self, **given: Any) -> Tensor:
        self.launches.append(given)
        offsets, locks = given["expert_layout"], given["locks"]
        assert offsets.dtype == locks.dtype == torch.int32
        assert len(locks) == 2048
        weights_LNK = decode_bf16(given["weight"].view(torch.uint8), given["weight_scale"]).float()
        assert len(offsets) == len(weights_LNK) + 1
        assert offsets[0] == 0
        out = torch.full((len(given["inputs"]), weights_LNK.shape[1]), torch.nan)
        for expert, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            product = given["inputs"][start:end].float() @ weights_LNK[expert].t()
            out[start:end] = product * given["weight_scale_2"][expert]
        return out.bfloat16()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub()
    library = SimpleNamespace(
        transform=SimpleNamespace(prepare_and_transform_humming_tensors=stub.lay_out),
        schema=SimpleNamespace(
            modelopt=SimpleNamespace(
                ModeloptNvfp4WeightSchema=lambda: SimpleNamespace(to_humming_schema=lambda dtype: "modelopt nvfp4")
            )
        ),
        tune=SimpleNamespace(get_heuristics_config=stub.choose),
        kernel=SimpleNamespace(humming=SimpleNamespace(HummingKernel=SimpleNamespace(prepare_kernels=stub.prepare))),
        ops=SimpleNamespace(launch_kernel=stub.launch),
    )
    monkeypatch.setattr(humming_backend, "library", lambda: library)
    kernel_for.cache_clear()
    return stub


@pytest.mark.parametrize("shared_experts", [0, 1])
@pytest.mark.usefixtures("uninitialised_memory_is_nan")
def test_every_variant_agrees_with_the_oracle(stub: Stub, shared_experts: int) -> None:
    work = workload("nvfp4-w4a16", shared_experts=shared_experts)
    built = Built(work, experts=HummingExperts(PAIRS_PER_TOKEN))
    finals = {}
    overlapped = Variant("humming")
    for variant in (overlapped.unsplit(), overlapped.split_serial(), overlapped, replace(overlapped, receive="exact")):
        finals[variant.role], traces = built.run(variant).traced()
        assert all(error.within(1e-2) for error in built.errors(traces)), variant.label
    assert torch.equal(finals["T2s"], finals["T2o"])


def test_empty_micro_batches_launch_nothing(stub: Stub) -> None:
    built = Built(workload("nvfp4-w4a16", tokens=1), experts=HummingExperts(PAIRS_PER_TOKEN))
    _, traces = built.run(replace(Variant("humming"), split_factor=4)).traced()
    assert all(error.within(1e-2) for error in built.errors(traces))
    assert all(len(launch["inputs"]) for launch in stub.launches)
    assert len(stub.launches) == 2 * built.work.layers, "one micro-batch holds the token"


def test_kernels_are_chosen_by_the_expected_pairs_of_a_micro_batch_once(stub: Stub) -> None:
    built = Built(workload("nvfp4-w4a16", tokens=21), experts=HummingExperts(PAIRS_PER_TOKEN))
    built.run(Variant("humming"))()
    built.run(Variant("humming"))()
    expected = [round(L * PAIRS_PER_TOKEN * tokens) for tokens in (11, 10)]
    assert sorted(stub.asked) == sorted(2 * expected), "of both projections"
    assert {launch["configs"][2].item() for launch in stub.launches} == {1, 2, 3, 4}


def test_offsets_are_never_read_before_they_are_written(stub: Stub) -> None:
    """The library would launch a kernel before the one in front of it ends, and read them before it waits."""
    Built(workload("nvfp4-w4a16"), experts=HummingExperts(PAIRS_PER_TOKEN)).run(Variant("humming"))()
    assert stub.prepared
    assert all(each == {"gemm_type": "grouped_contiguous", "use_pdl": False, "num_stages": 4} for each in stub.prepared)


def test_each_matrix_has_locks_of_its_own(stub: Stub) -> None:
    """Stream-K's partial sums of one tile would meet those of another."""
    built = Built(workload("nvfp4-w4a16"), experts=HummingExperts(PAIRS_PER_TOKEN))
    built.run(Variant("humming"))()
    places = {launch["locks"].data_ptr() for launch in stub.launches}
    assert len(places) == 2 * built.work.layers
