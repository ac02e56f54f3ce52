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


def test_streams_of_a_replay_are_no_cause() -> None:
    """The device puts a graph's branches on streams as it likes: work of one stream waits for none of the others."""
    planted = profile(SERIAL)
    planted.work.stream[:] = 7
    planted.work.launch_ns[:], planted.work.launched_ns[:] = 1 * US, 2 * US
    assert "same stream" not in names(planted)


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


def test_a_compute_kernel_that_fills_all_sms() -> None:
    held = [
        ("gemm1", 0, 100 * US, 200 * US, 1 * US),
        ("dispatch", 1, 202 * US, 282 * US, 104 * US),
        ("gemm1", 1, 284 * US, 400 * US, 108 * US),
        ("combine", 0, 402 * US, 480 * US, 112 * US),
    ]
    first = causes(profile(held))[0]
    assert first.name == "a compute kernel fills all SMs"
    assert first.evidence.startswith("2 of 2 communications")
    waited = (202 - 104) + (402 - 282)
    assert first.share == pytest.approx(waited / (waited + 80 + 78), rel=0.01)


def test_compute_that_was_launched_later_goes_first() -> None:
    preferred = [
        ("gemm1", 0, 100 * US, 200 * US, 1 * US),
        ("dispatch", 1, 302 * US, 382 * US, 4 * US),
        ("merge", 0, 200 * US, 300 * US, 8 * US),
        ("gemm1", 1, 500 * US, 510 * US, 12 * US),
    ]
    first = causes(profile(preferred))[0]
    assert first.name == "stream priority"
    assert first.evidence.startswith("1 of 1 communications")


def test_communication_that_gets_what_the_last_blocks_leave() -> None:
    late = [
        ("gemm1", 0, 100 * US, 200 * US, 1 * US),
        ("dispatch", 1, 180 * US, 380 * US, 4 * US),
        ("gemm1", 1, 500 * US, 510 * US, 12 * US),
    ]
    assert names(profile(late))[0] == "stream priority"
    early = [(stage, u, 110 * US if stage == "dispatch" else start, end, at) for stage, u, start, end, at in late]
    assert "stream priority" not in names(profile(early))


SERIALISED: list[Op] = [
    ("gemm1", 0, 100 * US, 200 * US, 1 * US),
    ("gemm1", 0, 201 * US, 300 * US, 2 * US),
    ("merge", 0, 301 * US, 310 * US, 3 * US),
    ("dispatch", 1, 303 * US, 383 * US, 4 * US),
    ("gemm1", 1, 500 * US, 510 * US, 12 * US),
]
"""As one hardware queue runs it: dispatch begins when the last kernel that was launched before it has begun."""


def test_queues_that_are_serialised() -> None:
    first = causes(profile(SERIALISED))[0]
    assert first.name == "serialised queues"
    assert "CUDA_DEVICE_MAX_CONNECTIONS" in first.remedy


def test_queues_are_not_serialised_where_communication_ever_overtook() -> None:
    overtook: list[Op] = [
        *SERIALISED,
        ("merge", 0, 800 * US, 810 * US, 13 * US),
        ("combine", 1, 700 * US, 720 * US, 14 * US),
    ]
    assert "serialised queues" not in names(profile(overtook))
    assert names(profile(overtook))[0] == "stream priority"


def test_what_waits_for_its_own_micro_batch_is_not_held_back() -> None:
    """The communication moves what that compute made: no setting could let it begin earlier."""
    own = [
        ("gemm1", 0, 100 * US, 200 * US, 1 * US),
        ("combine", 0, 201 * US, 281 * US, 104 * US),
        ("merge", 1, 500 * US, 510 * US, 108 * US),
    ]
    assert not {"a compute kernel fills all SMs", "stream priority", "serialised queues"} & set(names(profile(own)))
    others = [(stage, 1 - u if stage == "combine" else u, start, end, at) for stage, u, start, end, at in own]
    assert names(profile(others))[0] == "a compute kernel fills all SMs"


def test_a_replay_is_read_in_the_order_of_its_capture() -> None:
    """All of a graph is launched at once: what was captured before a communication may be what it waits for."""
    found = attribute(profile([("gemm1", 0, 100 * US, 200 * US, 1 * US), ("combine", 0, 201 * US, 281 * US, 4 * US)]))
    work = found.profile.work
    work.captured_ns[:], work.launch_ns[:], work.launched_ns[:] = work.launch_ns, 90 * US, 91 * US
    assert "stream priority" not in [cause.name for cause in diagnose(found, iterations(found))]
    work.captured_ns[:] = work.captured_ns[::-1].copy()
    assert "stream priority" in [cause.name for cause in diagnose(found, iterations(found))]


def test_compute_that_waits_for_the_communication_itself() -> None:
    waiting = [
        ("dispatch", 0, 100 * US, 180 * US, 1 * US),
        ("gemm1", 0, 182 * US, 300 * US, 4 * US),
        ("combine", 0, 302 * US, 382 * US, 8 * US),
        ("merge", 1, 500 * US, 510 * US, 12 * US),
    ]
    first = causes(profile(waiting))[0]
    assert first.name == "nothing else to compute"
    assert first.share == pytest.approx(80 / 160)


def test_a_graph_whose_branches_run_one_after_the_other() -> None:
    def replayed(ops: list[Op]) -> list[str]:
        found = attribute(profile(ops))
        found.profile.work.launch_ns[:] = found.profile.work.launch_ns[0]
        return [cause.name for cause in diagnose(found, iterations(found))]

    assert replayed(SERIAL)[0] == "a graph that merged the schedule"
    partly = [(s, u, start, 560 * US if s == "dispatch" else end, at) for s, u, start, end, at in SERIAL]
    assert "a graph that merged the schedule" not in replayed(partly)
    assert "a graph that merged the schedule" not in names(profile(SERIAL))


def test_a_stream_that_is_busy_with_communication_is_not_held_back_by_compute() -> None:
    queued = [
        ("gemm1", 0, 100 * US, 250 * US, 1 * US),
        ("dispatch", 0, 110 * US, 251 * US, 2 * US),
        ("dispatch", 1, 252 * US, 400 * US, 4 * US),
        ("gemm2", 0, 500 * US, 510 * US, 5 * US),
    ]
    assert names(profile(queued)) == []


def test_work_that_no_rule_knows() -> None:
    unknown = [
        ("elsewhere", 0, 100 * US, 200 * US, 1),
        ("dispatch", 0, 200 * US, 300 * US, 5),
        ("gemm1", 0, 300 * US, 310 * US, 9),
    ]
    assert names(profile(unknown))[0] == "annotations missing"


def test_no_communication_at_all() -> None:
    assert names(profile([("gemm1", 0, 100, 200, 1)])) == ["no communication"]
