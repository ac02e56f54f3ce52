"""Each cause of missing overlap, planted alone, is named first; a timeline that hides its communication names none."""

import numpy as np
import pytest
from timelines import Op, profile

from bench.timeline.attribute import attribute
from bench.timeline.diagnose import Cause, diagnose
from bench.timeline.metrics import iterations
from bench.timeline.model import Calls, Profile

US = 1000
OVERLAPPED: list[Op] = [
    ("gemm1", 0, 100 * US, 200 * US, 1 * US),
    ("dispatch", 1, 110 * US, 190 * US, 4 * US),
    ("gemm1", 1, 200 * US, 300 * US, 8 * US),
    ("combine", 0, 205 * US, 290 * US, 12 * US),
    ("merge", 0, 300 * US, 310 * US, 16 * US),
]
SERIAL: list[Op] = [
    ("gemm1", 0, 100 * US, 200 * US, 1 * US),
    ("dispatch", 1, 240 * US, 320 * US, 4 * US),
    ("gemm1", 1, 330 * US, 430 * US, 8 * US),
    ("combine", 0, 470 * US, 555 * US, 12 * US),
    ("merge", 0, 600 * US, 610 * US, 16 * US),
]


def causes(planted: Profile) -> list[Cause]:
    found = attribute(planted)
    return diagnose(found, iterations(found))


def names(planted: Profile) -> list[str]:
    return [cause.name for cause in causes(planted)]


def test_hidden_communication_needs_no_cause() -> None:
    assert names(profile(OVERLAPPED)) == []


def test_serial_work_without_a_planted_cause_names_none() -> None:
    assert names(profile(SERIAL)) == []


def test_one_stream() -> None:
    planted = profile(SERIAL)
    planted.work.stream[:] = 7
    first = causes(planted)[0]
    assert (first.name, first.share) == ("same stream", 1.0)
    assert "stream 7" in first.evidence


def test_a_host_wait_between_launches() -> None:
    ops = [
        *SERIAL[:2],
        *((stage, u, start, end, 321 * US + i) for i, (stage, u, start, end, _) in enumerate(SERIAL[2:])),
    ]
    planted = profile(ops)
    wait = planted.names.number("cudaStreamSynchronize")
    planted.waits = Calls(*(np.array([value]) for value in (6 * US, 320 * US, 1, wait)))
    first = causes(planted)[0]
    assert first.name == "host waits"
    assert first.share == pytest.approx(80 / 165, rel=0.01), "dispatch passed while the host waited"
    assert "cudaStreamSynchronize" in first.evidence


def test_a_wait_after_the_last_launch_holds_nothing_back() -> None:
    planted = profile(SERIAL)
    wait = planted.names.number("cudaDeviceSynchronize")
    planted.waits = Calls(*(np.array([value]) for value in (30 * US, 700 * US, 1, wait)))
    assert "host waits" not in names(planted)


def test_a_host_that_launches_late() -> None:
    late = [(stage, u, start, end, start - 3 * US) for stage, u, start, end, _ in SERIAL]
    assert names(profile(late))[0] == "launch-starved"


def test_communication_that_begins_only_when_compute_ends() -> None:
    held = [
        ("gemm1", 0, 100 * US, 200 * US, 1 * US),
        ("dispatch", 1, 201 * US, 281 * US, 4 * US),
        ("gemm1", 1, 300 * US, 400 * US, 8 * US),
        ("combine", 0, 402 * US, 480 * US, 12 * US),
    ]
    first = causes(profile(held))[0]
    assert first.name == "held back by compute"
    assert first.evidence.startswith("2 of 2 communications")


def test_a_stream_that_is_busy_with_communication_is_not_held_back_by_compute() -> None:
    queued = [
        ("gemm1", 0, 100 * US, 250 * US, 1 * US),
        ("dispatch", 0, 110 * US, 251 * US, 2 * US),
        ("dispatch", 1, 252 * US, 400 * US, 4 * US),
        ("gemm2", 0, 500 * US, 510 * US, 5 * US),
    ]
    assert "held back by compute" not in names(profile(queued))


def test_work_that_no_rule_knows() -> None:
    unknown = [
        ("elsewhere", 0, 100 * US, 200 * US, 1),
        ("dispatch", 0, 200 * US, 300 * US, 5),
        ("gemm1", 0, 300 * US, 310 * US, 9),
    ]
    assert names(profile(unknown))[0] == "annotations missing"


def test_no_communication_at_all() -> None:
    assert names(profile([("gemm1", 0, 100, 200, 1)])) == ["no communication"]
