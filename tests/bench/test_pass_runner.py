"""One case in one pass: checked, timed and stamped, in this order, and told step by step."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from one_pass import SETTINGS, Pass, by_role
from small_sweep import small_case

from bench.cases import with_companions
from bench.device_work import DeviceWork
from bench.identity import variant_id
from bench.measure.peers import Peers
from bench.measure.timer import Timer
from bench.pass_context import CaseFailureError, PassContext
from bench.results import Measurement, Status
from bench.running import progress_file
from moe_impl.options import SkewedRouting, SplitPolicy
from moe_impl.support import TBO_OFF


@pytest.fixture
def one_pass(tmp_path: Path) -> Pass:
    return Pass(tmp_path)


def test_a_case_that_works_is_checked_timed_and_stamped(one_pass: Pass) -> None:
    case = small_case()
    trial = one_pass.run(case)
    assert (trial.case_id, trial.pass_index, trial.timer) == (case.case_id, 4, "host")
    assert [m.variant for m in trial.measurements] == list(case.variants)
    for m in trial.measurements:
        assert (m.status, m.reason, len(m.samples_s), len(m.rounds)) == (Status.OK, None, 4, 4)
        assert m.check is not None
        assert m.check.passed
        assert m.stages is not None
        assert {len(row) for row in m.stages.op_s["gemm1"]} == {m.variant.split_factor}
        assert m.memory is None, "a CPU has no allocator to ask"
        assert "cpu: functional check, no performance claim" in m.labels
    assert sorted(place for m in trial.measurements for place in m.places) == list(range(12))
    # pass 4 of three variants begins with the second one
    assert [m.places for m in trial.measurements] == [(2, 3, 8, 9), (0, 5, 6, 11), (1, 4, 7, 10)]
    assert by_role(trial)["T1"].check.same_as_unsplit is None  # type: ignore[union-attr]
    assert 0 < trial.overhead_s < trial.elapsed_s
    assert sum(trial.spent_s.values()) == pytest.approx(trial.elapsed_s, rel=0.05)
    assert {"build", "first run", "oracle", "random delays", "warm-up", "measure", "stages"} <= trial.spent_s.keys()
    assert "start" not in trial.spent_s, "the process's, which the worker tells"


def test_a_batch_under_min_tokens_is_recorded_as_run_unsplit(one_pass: Pass) -> None:
    case = small_case(tokens=16)
    at_least_17 = replace(case.variants[-1], split=SplitPolicy(min_tokens=17))
    variants = tuple(dict.fromkeys((*with_companions(at_least_17), *case.variants)))
    t1, t2s_off, t2o_off, t2s, t2o = one_pass.run(replace(case, variants=variants)).measurements
    for m in (t2s_off, t2o_off):
        assert (m.status, m.effective_split_factor, m.variant.split_factor) == (Status.OK, 1, 2)
        assert TBO_OFF in m.limits
        assert TBO_OFF in m.labels
        assert m.stages is not None
        assert {len(row) for row in m.stages.op_s["gemm1"]} == {1}
    for m in (t1, t2s, t2o):
        assert m.effective_split_factor is None
        assert TBO_OFF not in m.limits


def test_the_traffic_is_that_of_the_true_routing(one_pass: Pass) -> None:
    traffic = one_pass.run(small_case(tokens=16)).traffic
    assert traffic is not None
    assert 16 <= traffic.rows <= 32  # top 2: one or two ranks a token
    assert 16 * 2 / 2 <= traffic.busiest_expert_pairs <= 32  # two local experts share 32 pairs
    assert sum(traffic.expert_pairs) == 2 * 32, "two layers; clones send each other what they keep"
    assert traffic.expert_imbalance is not None
    assert 1 <= traffic.expert_imbalance <= 2
    assert (traffic.rank, traffic.rank_rows, traffic.rank_imbalance) == (None, (), 1.0)


def test_the_traffic_of_a_skewed_routing_is_that_of_the_rank_played(one_pass: Pass) -> None:
    case = small_case(tokens=16)
    trial = one_pass.run(replace(case, workload=replace(case.workload, routing=SkewedRouting("hotspot", 1.0, 2))))
    assert [m.status for m in trial.measurements] == [Status.OK] * 3
    assert all("skewed routing: plays rank 2" in m.labels for m in trial.measurements)
    traffic = trial.traffic
    assert traffic is not None
    assert traffic.rank == 2
    assert len(traffic.rank_rows) == 4
    assert traffic.rows == traffic.rank_rows[2]
    assert traffic.rank_imbalance == max(traffic.rank_rows) * 4 / sum(traffic.rank_rows) > 1
    assert len(traffic.expert_pairs) == 2
    assert max(traffic.expert_pairs) >= traffic.busiest_expert_pairs


def test_everything_is_announced_before_it_begins(one_pass: Pass) -> None:
    case = small_case()
    one_pass.run(case)
    ids = [variant_id(v) for v in case.variants]
    expected: list[tuple[str, Any]] = [("build", None), ("self-check", None)]
    expected += [(phase, one) for phase in ("check", "warm-up") for one in ids]
    expected += [("measure", None)] * SETTINGS.rounds
    expected += [("stages", one) for one in ids]
    assert [(step.phase, step.variant_id) for step in one_pass.steps] == expected


def test_a_cross_check_is_announced_and_what_fails_while_it_collects_is_no_variants_fault(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collecting_fails(
        calls: Mapping[str, Callable[[], object]], timer: Timer, peers: Peers, announce: Callable[[str | None], None]
    ) -> dict[str, DeviceWork]:
        for key, call in calls.items():
            announce(key)
            call()
        announce(None)
        raise RuntimeError("made up")

    monkeypatch.setattr(PassContext, "cross_checks", property(lambda self: True))
    monkeypatch.setattr("bench.pass_runner.device_works", collecting_fails)
    case = small_case()
    with pytest.raises(CaseFailureError) as ended:
        one_pass.run(case)
    assert (ended.value.phase, ended.value.variant_id) == ("cross-check", None)
    checked = [step.variant_id for step in one_pass.steps if step.phase == "cross-check"]
    assert checked == [None, *(variant_id(v) for v in case.variants), None]
    assert progress_file.read(one_pass.progress) == progress_file.NOWHERE


def test_settled_variants_are_passed_on_and_not_run(one_pass: Pass) -> None:
    case = small_case()
    settled = Measurement(case.variants[2], Status.TIMEOUT, "made up")
    trial = one_pass.run(case, (settled,))
    assert trial.measurements[2] == settled
    assert [m.status for m in trial.measurements] == [Status.OK, Status.OK, Status.TIMEOUT]
    assert variant_id(case.variants[2]) not in {step.variant_id for step in one_pass.steps}


def test_a_case_whose_variants_are_all_settled_is_not_timed(one_pass: Pass) -> None:
    case = small_case()
    settled = tuple(Measurement(v, Status.SKIPPED, "made up") for v in case.variants)
    assert one_pass.run(case, settled).measurements == settled
    assert {step.phase for step in one_pass.steps} == {"build", "self-check"}
