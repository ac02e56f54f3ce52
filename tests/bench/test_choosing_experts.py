"""``experts: auto``: the fastest right backend of a case, once, for all its variants and passes (fakes on a CPU)."""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import two_backends
from fake_peers import FakePeers
from one_pass import CPU, Pass
from small_sweep import small_case
from two_backends import Fake, What, install

from bench import choosing_experts
from bench.choosing_experts import Means
from bench.environment import describe
from bench.measure.peers import ALONE, Peers
from bench.measure.timer import HostTimer
from bench.pass_context import CaseFailureError
from bench.quick_record import QuickReader
from bench.results import ExpertsChoice, Status, UnreadableTrialError, from_record, to_record
from bench.running.settled import Settled
from bench.targets import Target, Targets

AUTO = small_case(experts=("auto",))
NAPS_S = AUTO.workload.layers * two_backends.NAP_S
"""What ``slow`` adds to an unsplit iteration."""


@pytest.fixture
def one_pass(tmp_path: Path) -> Pass:
    return Pass(tmp_path)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch):
    return lambda **what: install(what, monkeypatch.setattr)


@pytest.mark.parametrize("fastest", ["triton", "humming"])
def test_the_fastest_right_one_runs_every_variant(one_pass: Pass, fakes, fastest: str) -> None:
    fakes(**{name: "fast" if name == fastest else "slow" for name in ("triton", "humming")})
    trial = one_pass.run(AUTO)
    choice = trial.experts_choice
    assert choice is not None
    assert (choice.experts, choice.out) == (fastest, {})
    assert choice.t1_s[fastest] + NAPS_S / 2 < max(choice.t1_s.values()), "of an unsplit iteration"
    before = 2 * AUTO.workload.layers * (1 + 2 * choosing_experts.CALLS)  # each candidate's check and turns
    assert set(Fake.ran[:before]) == {"triton", "humming"}
    assert set(Fake.ran[before:]) == {fastest}, "the one that was chosen"
    for m in trial.measurements:
        assert (m.status, m.variant.experts) == (Status.OK, "auto")
        assert f"experts auto: {fastest}" in m.labels


@pytest.mark.parametrize(
    ("what", "said"),
    [("wrong", "differs from the oracle by"), ("raises", "RuntimeError: no such kernel")],
)
def test_what_is_wrong_or_does_not_run_is_out_however_fast(one_pass: Pass, fakes, what: What, said: str) -> None:
    fakes(triton="slow", humming=what)
    trial = one_pass.run(AUTO)
    choice = trial.experts_choice
    assert choice is not None
    assert (choice.experts, list(choice.t1_s)) == ("triton", ["triton"])
    assert said in choice.out["humming"]
    assert "pages" not in choice.out["humming"]
    assert {m.status for m in trial.measurements} == {Status.OK}


def test_where_all_are_wrong_the_usual_one_is_measured_and_says_so(one_pass: Pass, fakes) -> None:
    fakes(triton="wrong", humming="wrong")
    trial = one_pass.run(AUTO)
    assert trial.experts_choice is not None
    assert (trial.experts_choice.experts, set(trial.experts_choice.out)) == ("triton", {"triton", "humming"})
    assert {m.status for m in trial.measurements} == {Status.INCORRECT}


def test_a_single_one_needs_no_time(one_pass: Pass, fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(triton="fast")
    monkeypatch.setattr(choosing_experts, "_checked", None)
    assert one_pass.run(AUTO).experts_choice == ExpertsChoice("triton")


def test_an_earlier_choice_stays_unless_it_cannot_run_here(one_pass: Pass, fakes) -> None:
    fakes(triton="fast", humming="slow")
    earlier = ExpertsChoice("humming", {"humming": 1.0, "triton": 2.0})
    assert one_pass.run(AUTO, experts_choice=earlier).experts_choice == earlier
    fakes(triton="fast")
    assert one_pass.run(AUTO, experts_choice=earlier).experts_choice == ExpertsChoice("triton")


def test_bf16_has_one_backend(one_pass: Pass) -> None:
    trial = one_pass.run(replace(AUTO, workload=replace(AUTO.workload, precision="bf16")))
    assert trial.experts_choice == ExpertsChoice("torch")
    assert {m.status for m in trial.measurements} == {Status.OK}


def test_nothing_is_chosen_where_nobody_asks(one_pass: Pass) -> None:
    assert one_pass.run(small_case()).experts_choice is None


def test_named_backends_stand_beside_auto_as_they_are(one_pass: Pass, fakes) -> None:
    fakes(triton="slow", humming="fast")
    trial = one_pass.run(small_case(experts=("auto", "triton")))
    taken_s = {(m.role, m.variant.experts): min(m.samples_s) for m in trial.measurements}
    for role in ("T1", "T2s", "T2o"):
        assert taken_s[role, "triton"] > taken_s[role, "auto"] + NAPS_S / 2
    for m in trial.measurements:
        assert any(label.startswith("experts auto") for label in m.labels) == (m.variant.experts == "auto")


def _choose(peers: Peers, taken_s: Mapping[str, float]) -> ExpertsChoice:
    """Where humming is asked first and this rank's calls take so long."""
    turns_s = itertools.cycle([*taken_s.values(), *reversed(taken_s.values())])

    class MadeUpTimer:
        name = "made up"

        def time_s(self, call: Callable[[], object]) -> float:
            return next(turns_s)

        device_time_s = time_s

    target = Targets(CPU).build(AUTO)
    return choosing_experts.choose(target, AUTO.variants, Means(describe(CPU), MadeUpTimer(), peers))


def test_ranks_choose_alike_by_the_slowest_of_them(fakes) -> None:
    fakes(humming="fast", triton="fast")
    taken_s = {"humming": 0.1, "triton": 0.2}
    assert _choose(ALONE, taken_s).experts == "humming"
    found = _choose(FakePeers(lambda value: [0.3] if value == [0.1] else value), taken_s)
    assert (found.experts, found.t1_s) == ("triton", {"humming": 0.3, "triton": 0.2})


def test_what_another_rank_finds_wrong_is_out_on_all(fakes) -> None:
    fakes(humming="fast", triton="fast")
    complaints = iter(["differs"])
    other = FakePeers(lambda value: next(complaints, None) if value is None else value)
    found = _choose(other, {"triton": 0.2})
    assert found == ExpertsChoice("triton", {"triton": 0.2}, {"humming": "rank 1 differs"})


def test_a_lost_device_ends_the_pass_and_the_candidate_is_told(one_pass: Pass, fakes, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """As after an illegal access: no other candidate could run in this process."""
    fakes(triton="fast", humming="raises")

    def lost(self: Target) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(Target, "synchronize", lost)
    with pytest.raises(CaseFailureError) as ended:
        one_pass.run(AUTO)
    assert (ended.value.phase, ended.value.variant_id) == ("choose experts", None)
    assert one_pass.steps[-1].detail == "humming"


def test_one_rank_does_not_go_on_where_others_may_wait_for_it(fakes) -> None:  # type: ignore[no-untyped-def]
    fakes(triton="fast", humming="raises")
    with pytest.raises(RuntimeError, match="no such kernel"):
        _choose(FakePeers(lambda value: value), {"triton": 0.2})


def test_what_ended_a_process_is_not_tried_again(fakes) -> None:  # type: ignore[no-untyped-def]
    fakes(triton="slow", humming="fast")
    told: list[str] = []
    means = Means(describe(CPU), HostTimer(), announce=told.append, ruled_out={"humming": "worker killed by SIGSEGV"})
    found = choosing_experts.choose(Targets(CPU).build(AUTO), AUTO.variants, means)
    assert (found.experts, found.out) == ("triton", {"humming": "worker killed by SIGSEGV"})
    assert set(told) == {"triton"}


def test_candidates_are_timed_as_the_case_is(fakes) -> None:  # type: ignore[no-untyped-def]
    """With a cold cache where samples are to be cold, and every other turn in the opposite order."""
    fakes(triton="fast", humming="fast")
    told: list[str] = []
    means = Means(describe(CPU), HostTimer(), announce=told.append, before_sample=lambda: told.append("flush"))
    choosing_experts.choose(Targets(CPU).build(AUTO), AUTO.variants, means)
    assert told[:2] == ["triton", "humming"], "checked"
    turn = ["triton", "flush", "humming", "flush"]
    back = ["humming", "flush", "triton", "flush"]
    assert told[2:] == (turn + back) * choosing_experts.CALLS


def test_what_the_others_prepared_is_dropped_but_for_what_a_variant_names(fakes) -> None:  # type: ignore[no-untyped-def]
    fakes(triton="fast", humming="slow")
    for case, kept in ((AUTO, {"triton"}), (small_case(experts=("auto", "humming")), {"triton", "humming"})):
        targets = Targets(CPU)
        choosing_experts.choose(targets.build(case), AUTO.variants, Means(describe(CPU), HostTimer()))
        assert {name for name, _ in targets._prepared} == kept


def test_the_first_choice_of_a_case_is_handed_to_later_passes(one_pass: Pass, fakes) -> None:
    fakes(triton="fast")
    trial = one_pass.run(AUTO)
    settled = Settled([AUTO], trial.machine)
    assert settled.choice(AUTO) is None
    for name in ("humming", "triton"):
        settled.finish(AUTO, replace(trial, experts_choice=ExpertsChoice(name)))
    assert settled.choice(AUTO) == ExpertsChoice("humming")
    assert settled.choice(small_case(tokens=32, experts=("auto",))) is None


def test_a_choice_is_stored_and_both_readers_agree(one_pass: Pass, fakes) -> None:
    fakes(triton="fast")
    trial = replace(one_pass.run(AUTO), experts_choice=ExpertsChoice("triton", {"triton": 0.1}, {"humming": "differs"}))
    record = json.loads(json.dumps(to_record(trial)))
    assert record["experts_choice"] == {"experts": "triton", "t1_s": {"triton": 0.1}, "out": {"humming": "differs"}}
    line = json.dumps(record, separators=(",", ":")).encode()
    assert from_record(record) == QuickReader().read(line) == trial
    record["experts_choice"]["experts"] = "torch"
    with pytest.raises(UnreadableTrialError, match=r"experts_choice\.experts: torch, expected triton or humming"):
        from_record(record)
    record["experts_choice"] = None
    with pytest.raises(UnreadableTrialError, match="experts_choice: none, but a variant with experts auto is ok"):
        from_record(record)
