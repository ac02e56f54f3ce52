"""T1 and T2s are derived from a variant; links and workloads answer in SI units."""

import pytest

from moe_impl.links import ASSUMED_ALPHA_S, HOST_LINK, LOCAL, PACED_PRESETS
from moe_impl.options import Link, LinkTime, Variant, Workload, default_experts
from moe_impl.shapes import PRESETS

OVERLAPPED = Variant("triton", split_factor=4, order="yield_before", comm_priority="default")
RESERVED = Variant("triton", reserve_sms=20)
SPLIT_SERIAL = Variant("triton", engine="serial", split_factor=4)
UNSPLIT = Variant("triton", engine="serial", split_factor=1)


def test_t2s_keeps_the_split_and_drops_what_only_overlap_means() -> None:
    assert OVERLAPPED.split_serial() == SPLIT_SERIAL


def test_t1_drops_the_split_too() -> None:
    assert OVERLAPPED.unsplit() == UNSPLIT
    assert SPLIT_SERIAL.unsplit() == UNSPLIT
    assert RESERVED.unsplit() == UNSPLIT


def test_t2s_leaves_as_many_sms_free_as_its_t2o_and_t1_none() -> None:
    assert (RESERVED.split_serial().reserve_sms, RESERVED.unsplit().reserve_sms) == (20, 0)
    assert Variant("triton", engine="serial", reserve_sms=20).normalized() == RESERVED.split_serial()
    assert Variant("triton", split_factor=1, reserve_sms=20).normalized() == UNSPLIT


@pytest.mark.parametrize(
    ("given", "normal", "role"),
    [
        (OVERLAPPED, OVERLAPPED, "T2o"),
        (SPLIT_SERIAL, SPLIT_SERIAL, "T2s"),
        (Variant("triton", engine="serial", split_factor=4, order="yield_before"), SPLIT_SERIAL, "T2s"),
        (Variant("triton", engine="streams", split_factor=1, order="yield_before"), UNSPLIT, "T1"),
        (UNSPLIT, UNSPLIT, "T1"),
    ],
)
def test_a_variant_without_overlap_only_names_t1_or_t2s(given: Variant, normal: Variant, role: str) -> None:
    assert (given.normalized(), given.role, normal.role) == (normal, role, role)
    assert normal.normalized() == normal


@pytest.mark.parametrize(
    ("variant", "label"),
    [
        (UNSPLIT, "off triton"),
        (SPLIT_SERIAL, "serial x4 triton"),
        (OVERLAPPED, "streams x4 triton yield_before default-priority"),
        (RESERVED, "streams x2 triton reserve-20"),
        (RESERVED.split_serial(), "serial x2 triton reserve-20"),
        (Variant("torch"), "streams x2 torch"),
        (Variant("torch", launch="graph"), "streams x2 torch graph"),
        (Variant("torch", launch="graph").unsplit(), "off torch graph"),
    ],
)
def test_a_label_names_the_engine_the_split_and_what_is_not_default(variant: Variant, label: str) -> None:
    assert variant.label == label


def test_the_default_backend_reads_the_precisions_own_weights() -> None:
    assert (default_experts("bf16"), default_experts("nvfp4-w4a16")) == ("torch", "triton")


def test_a_link_takes_alpha_plus_bytes_over_bandwidth_in_each_direction() -> None:
    link = Link("paced", 20, (LinkTime("dispatch", 2e-6, 1e9), LinkTime("combine", 0.0, 2e9)))
    assert link.seconds("dispatch", 3000) == pytest.approx(5e-6)
    assert link.seconds("combine", 3000) == pytest.approx(1.5e-6)
    assert LOCAL.seconds("dispatch", 10**9) == 0.0
    assert HOST_LINK.seconds("dispatch", 10**9) == 0.0, "it is measured, not modelled"


def test_a_paced_link_without_a_direction_is_refused_when_asked() -> None:
    link = Link("paced", 20, (LinkTime("dispatch", 0.0, 1e9),), name="one-way")
    with pytest.raises(ValueError, match="link 'one-way' has no time for combine of bf16 rows"):
        link.seconds("combine", 1)


def test_a_payload_dtype_of_its_own_time_uses_it_and_others_the_one_that_fills_all() -> None:
    link = Link("paced", 20, (LinkTime("dispatch", 1e-6, 1e9), LinkTime("dispatch", 2e-6, 1e9, "fp8")))
    assert (link.time("dispatch").alpha_s, link.time("dispatch", "nvfp4").alpha_s) == (1e-6, 1e-6)
    assert link.time("dispatch", "fp8").alpha_s == 2e-6


@pytest.mark.parametrize("name", PACED_PRESETS)
def test_a_link_preset_says_where_it_is_from(name: str) -> None:
    link = PACED_PRESETS[name]
    assert (link.name, link.transport) == (name, "paced")
    assert {time.direction for time in link.times} == {"dispatch", "combine"}
    assert ("alpha assumed" in link.source) == (link.times[0].alpha_s == ASSUMED_ALPHA_S == link.times[1].alpha_s)
    assert link.gpu
    assert link.comm_sms > 0


def test_a_workload_knows_its_shard_and_its_row() -> None:
    workload = Workload(PRESETS["deepseek-v3"], ep_size=8, layers=4, tokens=1024, precision="bf16")
    assert (workload.local_experts, workload.payload_row_bytes("dispatch")) == (32, 14336)
