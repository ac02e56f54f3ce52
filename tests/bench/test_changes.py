"""What a resumed sweep refuses: another code, machine, software or setting than the run was measured with."""

from dataclasses import replace
from typing import Any

import pytest
from small_sweep import small_case
from synthetic import H100, Builder

from bench.errors import BenchError, Exit
from bench.results import Trial
from bench.running import changes
from bench.running.messages import Ready

TRIALS = Builder(machine=H100, pairs=2, passes=1).trials([small_case(16)])
CODE = {"version": "0.1.0", "checkout": {"commit": "69e585c0123", "dirty": False}, "source": "aaaa"}
THERE: dict[str, Any] = {
    "bench": CODE,
    "python": "3.12.3",
    "cuda": "13.0",
    "nccl": "2.28",
    "driver": "570.1",
    "gpu": {"name": H100.name, "sm_clock_mhz": 345, "power_limit_w": 700.0},
    "settings": {"NCCL_ALGO": "Ring"},
}


def since(now: dict[str, Any], stored: dict[str, Any] = THERE, trials: list[Trial] = TRIALS) -> list[str]:
    return changes.changes(trials, stored, Ready(H100, now))


def test_the_same_code_on_the_same_machine_goes_on() -> None:
    assert since(THERE) == []
    changes.refuse([])


@pytest.mark.parametrize(
    ("field", "value", "stored"),
    [
        ("name", "NVIDIA H200", "NVIDIA H100 80GB HBM3"),
        ("torch_version", "9.9", "2.13.0"),
        ("triton_version", None, "3.9.0"),
        ("memory_bytes", 2**30, 80 * 2**30),
        ("ranks", 2, 1),
    ],
)
def test_a_machine_that_differs_in_any_fact_is_told(field: str, value: object, stored: object) -> None:
    now = Ready(replace(H100, **{field: value}), THERE)
    assert changes.changes(TRIALS, THERE, now) == [
        f"machine.{field}: the run was measured with {stored}, now it is {value}"
    ]


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (
            {"bench": {"version": "0.2.0", "checkout": None, "source": "bbbb"}},
            "code: the run was measured with 0.1.0, commit 69e585c, source aaaa, now it is 0.2.0, source bbbb",
        ),
        (
            {"bench": CODE | {"checkout": {"commit": "69e585c0123", "dirty": True}, "source": "bbbb"}},
            "code: the run was measured with 0.1.0, commit 69e585c, source aaaa, "
            "now it is 0.1.0, commit 69e585c with changes, source bbbb",
        ),
        ({"driver": "580.2"}, "driver: the run was measured with 570.1, now it is 580.2"),
        ({"python": "3.11.1"}, "python: the run was measured with 3.12.3, now it is 3.11.1"),
        ({"gpu": {"power_limit_w": 350.0}}, "gpu.power_limit_w: the run was measured with 700.0, now it is 350.0"),
        ({"settings": {}}, "settings.NCCL_ALGO: the run was measured with Ring, now it is unset"),
        (
            {"settings": {"NCCL_ALGO": "Ring", "NCCL_PROTO": "LL"}},
            "settings.NCCL_PROTO: the run was measured with unset, now it is LL",
        ),
    ],
)
def test_code_software_and_settings_that_differ_are_told(now: dict[str, Any], line: str) -> None:
    assert since(THERE | now) == [line]


@pytest.mark.parametrize(
    "now",
    [
        {"bench": CODE | {"checkout": {"commit": "another", "dirty": False}}},
        {"gpu": {"power_limit_w": 700.0, "sm_clock_mhz": 1980}},
        {"driver": None},
        {"platform": "another kernel"},
    ],
    ids=["a commit that changed no code", "a clock of the moment", "unknown here", "no matter"],
)
def test_what_changes_no_measurement_or_is_unknown_is_not(now: dict[str, Any]) -> None:
    assert since(THERE | now) == []


@pytest.mark.parametrize("stored", [{}, {"bench": None, "settings": 3, "gpu": []}, {"bench": {"version": "0.0.9"}}])
def test_a_run_that_recorded_none_of_it_is_compared_by_its_machine_alone(stored: dict[str, Any]) -> None:
    assert since(THERE, stored) == []


def test_all_changes_are_told_at_once_with_the_way_on() -> None:
    changed = since(THERE | {"driver": "580.2", "settings": {}})
    with pytest.raises(BenchError) as refused:
        changes.refuse(changed)
    assert refused.value.code == Exit.BAD_INPUT
    assert [line.partition(":")[2].split(":")[0].strip() for line in refused.value.problems[:2]] == [
        "driver",
        "settings.NCCL_ALGO",
    ]
    assert refused.value.problems[2:] == (f"--resume: {changes.WAY_ON}",)


def test_what_went_on_anyway_is_recorded_beside_what_was_there() -> None:
    once = changes.recorded(THERE, ["a: x", "b: y"])
    assert once[changes.RECORD].popitem()[1] == "a: x; b: y"
    assert {key: once[key] for key in THERE} == THERE
    again = changes.recorded({**THERE, changes.RECORD: {"2026-01-01T00:00:00+00:00": "a: x"}}, ["c: z"])
    assert list(again[changes.RECORD].values()) == ["a: x", "c: z"]
