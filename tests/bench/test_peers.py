"""How ranks agree: what each rule makes of their values, what a case does with it, and the real group of processes."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_peers import FakePeers
from one_pass import CPU, SETTINGS
from plain_schedule import build
from small_sweep import small_case
from synthetic import Builder

from bench.correctness import of_all_ranks
from bench.environment import describe
from bench.measure import group
from bench.measure.peers import ALONE
from bench.measure.protocol import measure, rank_skew, warm_up
from bench.measure.stages import over_ranks
from bench.measure.timer import HostTimer
from bench.pass_context import PassContext
from bench.pass_runner import CaseRun
from bench.results import Check, Memory, Status, Trial, from_record, to_record
from bench.running import progress_file
from bench.running.messages import JobCase
from bench.running.worker_process import worker_environment
from bench.settings import MeasureSettings, SampleLimits
from bench.targets import Targets
from moe_impl.inputs import draw_inputs
from moe_impl.routing import select_experts

GOOD = Check(1e-3, 1e-2, 2.0, 10.0, True, True)


def test_one_process_agrees_with_itself() -> None:
    assert (ALONE.rank, ALONE.size) == (0, 1)
    assert ALONE.gather("x") == ["x"]
    assert ALONE.slowest([1.0, 3.0]) == [1.0, 3.0]
    assert (ALONE.agree(True), ALONE.agree(False)) == (True, False)
    assert ALONE.complaint("differs") == "differs"
    assert ALONE.most(None) is None


def test_the_slowest_is_found_element_by_element() -> None:
    assert FakePeers(lambda mine: [2.0, 2.0]).slowest([1.0, 3.0]) == [2.0, 3.0]


@pytest.mark.parametrize(("mine", "other"), [(True, True), (True, False), (False, True), (False, False)])
def test_all_ranks_must_agree(mine: bool, other: bool) -> None:
    assert FakePeers(lambda _: other).agree(mine) == (mine and other)


def test_a_complaint_names_its_rank() -> None:
    assert FakePeers(lambda _: None).complaint(None) is None
    assert FakePeers(lambda _: "differs").complaint(None) == "rank 1 differs"
    assert FakePeers(lambda _: "is late").complaint("differs") == "rank 0 differs"


def test_memory_is_the_most_of_any_rank() -> None:
    assert FakePeers(lambda _: Memory(1, 9, 3)).most(Memory(5, 2, 0)) == Memory(5, 9, 3)
    assert FakePeers(lambda _: None).most(None) is None


def test_a_check_is_the_worst_of_all_ranks() -> None:
    nan = float("nan")
    worst = of_all_ranks([GOOD, replace(GOOD, relative_error=5e-2, worst_row_ratio=nan, passed=False)])
    assert (worst.relative_error, worst.passed, worst.same_as_unsplit) == (5e-2, False, True)
    assert worst.worst_row_ratio != worst.worst_row_ratio, "NaN is the worst"
    assert of_all_ranks([replace(GOOD, same_as_unsplit=None)] * 2).same_as_unsplit is None
    assert of_all_ranks([GOOD, replace(GOOD, same_as_unsplit=False)]).same_as_unsplit is False


class Clock:
    """Every call takes a second."""

    name = "made up"

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def time_s(self, call: Callable[[], object]) -> float:
        self._calls.append("time")
        call()
        return 1.0

    device_time_s = time_s


def doubled(value: Any) -> Any:
    """A rank that takes twice as long as this one."""
    return [2 * one for one in value]


def test_a_sample_is_the_slowest_ranks_and_the_skew_is_kept() -> None:
    peers = FakePeers(doubled)
    settings = MeasureSettings(rounds=1, round_min_s=0.0, warm_up_s=0.0)
    samples = measure({"A": lambda: None}, Clock(peers.calls), settings, lambda what, current: None, 0, peers)["A"]
    assert samples.samples_s == [2.0, 2.0]
    assert samples.rank_skew == 0.5
    timed = [index for index, call in enumerate(peers.calls) if call == "time"]
    assert len(timed) == 5
    assert all(peers.calls[index - 1] == "align" for index in timed), "ranks begin together"


def test_repeats_follow_the_slowest_rank() -> None:
    """A round of 8 s: four pairs by this rank's clock, two by the slower's; ranks must not differ in that."""
    peers = FakePeers(doubled)
    settings = MeasureSettings(rounds=1, round_min_s=8.0, warm_up_s=0.0)
    samples = measure({"A": lambda: None}, Clock(peers.calls), settings, lambda what, current: None, 0, peers)["A"]
    assert len(samples.samples_s) == 2 * 2


def test_a_warm_up_ends_when_rank_0_says_so() -> None:
    answers = iter([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    peers = FakePeers(doubled, rank=1, firsts=lambda mine: next(answers))
    warm_up(lambda: None, Clock(peers.calls), 0.0, peers)  # by its own clock: three calls
    assert peers.calls.count("time") == 5


def test_rounds_end_when_rank_0_says_so() -> None:
    """By its own clock this rank knows every ratio after the least samples; rank 0 goes on for two rounds more."""
    settings = MeasureSettings(samples=SampleLimits(12, 400), stop_when=0.01, round_min_s=0.0, warm_up_s=0.0)
    rounds = []
    for more in (0, 2):
        warm_ups = [1.0] * 3 + [0.0]
        answers = iter([*warm_ups, *warm_ups, *[1.0] * (6 + more), 0.0])
        peers = FakePeers(same, rank=1, firsts=lambda mine, answers=answers: next(answers))
        calls = {"A": lambda: None, "B": lambda: None}
        taken = measure(calls, Clock(peers.calls), settings, lambda *_: None, 0, peers, {"B": "A"})
        rounds.append(taken["B"].rounds[-1] + 1)
    assert rounds == [6, 8]


def test_the_skew_is_the_typical_iterations_and_unknown_for_one_rank() -> None:
    assert rank_skew([[1.0, 1.0, 1.0], [2.0, 1.25, 1.0], [1.5, 1.0, 1.0]]) == pytest.approx(0.2)
    assert rank_skew([[1.0, 2.0]]) is None


def test_stages_are_the_slowest_compute_and_the_shortest_wait() -> None:
    """Rank 1 computes twice as long as rank 0, which waits for it in its collectives: one rank's span, not the sum."""
    schedule = build(1, 2, "yield_after")
    rank_0 = [10.0 if op.lane == "comm" else 1.0 for op in schedule.ops]
    rank_1 = [4.0 if op.lane == "comm" else 2.0 for op in schedule.ops]
    assert over_ranks(schedule, [rank_0, rank_1]) == rank_1
    assert over_ranks(schedule, [rank_0]) == rank_0


def run_case(folder: Path, peers: FakePeers) -> Trial:
    progress_file.reset(folder / "progress")
    writer = progress_file.ProgressFile(folder / "progress")
    machine, targets = describe(CPU, 2), Targets(CPU)
    context = PassContext(0, SETTINGS, CPU, machine, targets, HostTimer(), writer, lambda event: None, peers)
    return CaseRun.of(context, JobCase(small_case())).trial()


def same(value: Any) -> Any:
    return value


def test_a_case_of_two_ranks_that_do_alike_is_timed(tmp_path: Path) -> None:
    peers = FakePeers(same)
    trial = run_case(tmp_path, peers)
    assert trial.machine.ranks == 2
    for m in trial.measurements:
        assert (m.status, len(m.samples_s), m.rank_skew) == (Status.OK, 4, 0.0)
    assert peers.calls[-1] == "align", "no rank may be in the next case while another can still fail in this one"


def test_what_is_wrong_on_another_rank_is_wrong(tmp_path: Path) -> None:
    def wrong(value: Any) -> Any:
        if isinstance(value, Check):
            return replace(value, passed=False, relative_error=1.0)
        return "differs from the oracle" if value is None else value

    for m in run_case(tmp_path, FakePeers(wrong)).measurements:
        assert (m.status, m.reason) == (Status.INCORRECT, "rank 1 differs from the oracle")
        assert m.check is not None
        assert (m.check.passed, m.check.relative_error) == (False, 1.0)
        assert m.samples_s == ()


def test_a_last_output_that_differs_on_another_rank_is_wrong(tmp_path: Path) -> None:
    for m in run_case(tmp_path, FakePeers(lambda value: False if value is True else value)).measurements:
        assert m.status is Status.INCORRECT
        assert m.reason == "the last timed iteration's output differs from the checked one"


def test_the_traffic_of_a_rank_is_what_all_ranks_send_there() -> None:
    """By brute force: both ranks' ids, counted where they go."""
    case = small_case(tokens=16)
    case = replace(case, workload=replace(case.workload, ep_size=2))
    targets = [Targets(CPU, rank).build(case) for rank in (0, 1)]
    of_rank_1: list[Any] = []
    targets[1].traffic(FakePeers(lambda mine: of_rank_1.append(mine) or mine, rank=1))
    left = iter(of_rank_1)
    found = targets[0].traffic(FakePeers(lambda mine: next(left)))

    rows, busiest = 0, 0
    for layer in range(2):
        pairs = [0] * 4
        for rank in (0, 1):
            inputs = draw_inputs(case.workload, CPU, rank)
            ids_TK, _ = select_experts(inputs.logits_LTE[layer], inputs.router, 2, inputs.bias_E)
            for ids_K in ids_TK.tolist():
                rows += any(expert < 4 for expert in ids_K)
                for expert in ids_K:
                    if expert < 4:
                        pairs[expert] += 1
        busiest = max(busiest, *pairs)
    assert (found.rows, found.busiest_expert_pairs) == (rows / 2, busiest)
    assert (found.rank, len(found.rank_rows), found.rank_rows[0]) == (0, 2, rows / 2)
    assert found.rank_imbalance == max(found.rank_rows) / (sum(found.rank_rows) / 2) >= 1
    assert found != targets[0].traffic(), "clones would send other rows"


def test_a_record_from_before_there_were_ranks_is_one_ranks() -> None:
    trial = Builder(passes=1, pairs=1).trials([small_case()])[0]
    record = to_record(trial)
    del record["machine"]["ranks"]
    for measurement in record["measurements"]:
        del measurement["rank_skew"]
    assert from_record(record) == trial
    assert (trial.machine.ranks, trial.measurements[0].rank_skew) == (1, None)


MEMBER = """
import json, sys, torch
from pathlib import Path
from bench.measure.group import joined

rank, rendezvous = int(sys.argv[1]), Path(sys.argv[2])
with torch.inference_mode(), joined(rank, 3, rendezvous, torch.device("cpu"), 60.0) as peers:
    peers.align()
    found = [peers.rank, peers.size, peers.gather({"mine": rank}), peers.first(rank + 0.1)]
    found += [peers.slowest([rank, -rank])]
    found += [peers.agree(rank < 9), peers.agree(rank == 1), peers.complaint(f"is {rank}" if rank else None)]
print(json.dumps(found))
"""


def test_three_processes_talk(tmp_path: Path) -> None:
    """Each rank hears the same, at its own place."""
    members = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", MEMBER, str(rank), str(tmp_path / "rendezvous")],
            env=worker_environment() | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
        )
        for rank in range(3)
    ]
    for rank, member in enumerate(members):
        said, _ = member.communicate(timeout=60)
        heard = [[{"mine": 0}, {"mine": 1}, {"mine": 2}], 0.1, [2, 0], True, False, "rank 1 is 1"]
        assert json.loads(said) == [rank, 3, *heard]


def test_a_gpus_queued_work_is_waited_for_before_ranks_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: called.append(f"synchronize {device}"))
    monkeypatch.setattr(group.dist, "barrier", lambda group: called.append(f"barrier of {group}"))
    monkeypatch.setattr(group.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(group.dist, "get_world_size", lambda: 2)
    group.Group("the talk", torch.device("cuda", 1)).align()
    assert called == ["synchronize cuda:1", "barrier of the talk"]
