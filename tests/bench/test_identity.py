"""Ids: stable over runs, machines and new axes; nothing that is only for people enters."""

from dataclasses import dataclass, field, make_dataclass, replace

import pytest

from bench.identity import canonical, case_id, variant_id
from moe_impl.links import LOCAL, PACED_PRESETS
from moe_impl.options import Link, LinkTime, SplitPolicy, Variant, Workload
from moe_impl.shapes import PRESETS

WORKLOAD = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=2, tokens=1024, precision="bf16")
PACED = PACED_PRESETS["h800-nvlink-ep8"]


def test_ids_are_those_of_every_stored_run() -> None:
    """Golden: a change here orphans all baselines; it needs a new IDENTITY_VERSION and an entry in its history."""
    routed_alone = replace(WORKLOAD, model=replace(WORKLOAD.model, shared_experts=0))
    assert case_id(routed_alone, PACED) == "d6b8552325c9ace5"
    assert case_id(routed_alone, LOCAL) == "691945d60e8eb4f1"
    assert case_id(WORKLOAD, PACED) == "e96d4b0838e41933"
    assert variant_id(Variant("triton")) == "a38ace97cc6c8749"
    assert variant_id(Variant("torch", order="yield_before", split_factor=4)) == "6e2f65d7422e3770"


def test_a_fields_default_does_not_enter() -> None:
    assert canonical(Variant("torch", engine="streams", split_factor=2)) == {"experts": "torch"}
    assert canonical(replace(WORKLOAD, seed=0)) == canonical(WORKLOAD)
    assert canonical(replace(WORKLOAD, seed=1)) == {**canonical(WORKLOAD), "seed": 1}


def test_a_split_policys_defaults_do_not_enter_either() -> None:
    assert canonical(Variant("torch", split=SplitPolicy("equal"))) == {"experts": "torch"}
    assert canonical(Variant("torch", split=SplitPolicy("balanced", min_tokens=9))) == {
        "experts": "torch",
        "split": {"policy": "balanced", "min_tokens": 9},
    }


def test_a_new_axis_with_a_default_leaves_every_id_alone() -> None:
    new = make_dataclass("Variant", [("attention", str, field(default="none"))], bases=(Variant,), frozen=True)
    assert variant_id(new("triton")) == variant_id(Variant("triton"))
    assert variant_id(new("triton", attention="mla")) != variant_id(Variant("triton"))


def test_a_default_made_by_a_factory_does_not_enter_either() -> None:
    @dataclass(frozen=True)
    class Made:
        parts: tuple[int, ...] = field(default_factory=lambda: (1, 2))

    assert canonical(Made()) == {}
    assert canonical(Made((1,))) == {"parts": [1]}


def test_names_sources_and_gpus_are_for_people_only() -> None:
    renamed = replace(PACED, name="mine", source="measured", gpu=None)
    assert case_id(replace(WORKLOAD, model=replace(WORKLOAD.model, name="mine")), renamed) == case_id(WORKLOAD, PACED)


@pytest.mark.parametrize(
    "other",
    [
        (replace(WORKLOAD, tokens=1025), PACED),
        (replace(WORKLOAD, precision="nvfp4-w4a16"), PACED),
        (replace(WORKLOAD, model=replace(WORKLOAD.model, top_k=4)), PACED),
        (replace(WORKLOAD, model=replace(WORKLOAD.model, router=replace(WORKLOAD.model.router, top_groups=3))), PACED),
        (WORKLOAD, LOCAL),
        (WORKLOAD, replace(PACED, comm_sms=21)),
        (WORKLOAD, Link("paced", 20, tuple(LinkTime(t.direction, 1e-6, t.bandwidth_bytes_per_s) for t in PACED.times))),
    ],
)
def test_whatever_changes_the_answer_changes_the_id(other: tuple[Workload, Link]) -> None:
    assert case_id(*other) != case_id(WORKLOAD, PACED)


def test_ids_are_sixteen_hex_digits() -> None:
    for found in (case_id(WORKLOAD, PACED), variant_id(Variant("torch"))):
        assert len(found) == 16
        int(found, 16)
