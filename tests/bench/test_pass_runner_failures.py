"""What is wrong is never timed, and what goes wrong is named with its phase and variant."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from one_pass import Merge, Pass, by_role, replace_merge
from small_sweep import small_case
from torch import Tensor

from bench import correctness
from bench.cases import Case
from bench.identity import variant_id
from bench.pass_context import CaseFailureError
from bench.results import Status
from bench.running import progress_file
from bench.targets import Target, Targets
from moe_impl.options import Link, LinkTime
from moe_impl.state import UbatchState


@pytest.fixture
def one_pass(tmp_path: Path) -> Pass:
    return Pass(tmp_path)


def test_a_wrong_output_is_incorrect_and_never_timed(one_pass: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(merge: Merge) -> Merge:
        def body(state: UbatchState, layer: int) -> None:
            merge(state, layer)
            state.y_TH = state.y_TH / 2  # type: ignore[operator]

        return body

    replace_merge(monkeypatch, "T2o", halved)
    trial = one_pass.run(small_case())
    found = by_role(trial)
    assert found["T2o"].status == Status.INCORRECT
    assert found["T2o"].reason == "differs from the oracle by 0.5, tolerance 0.01"
    assert found["T2o"].check is not None
    assert found["T2o"].check.relative_error == pytest.approx(0.5, rel=0.02)
    assert (found["T2o"].samples_s, found["T2o"].stages) == ((), None)
    assert (found["T1"].status, found["T2s"].status) == (Status.OK, Status.OK)
    assert trial.failed


def test_an_overlapped_run_that_is_one_bit_off_the_serial_one_is_incorrect(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_bit_off(merge: Merge) -> Merge:
        def body(state: UbatchState, layer: int) -> None:
            merge(state, layer)
            if layer == 1:
                state.x_TH.view(torch.int16)[0, 0] ^= 1

        return body

    replace_merge(monkeypatch, "T2o", one_bit_off)
    found = by_role(one_pass.run(small_case()))["T2o"]
    assert found.status == Status.INCORRECT
    assert found.reason == "differs from the split serial run, bit for bit: a missing dependency?"
    assert found.check is not None
    assert found.check.passed, "the oracle alone would not have seen it"


def slightly_different(expected: Tensor) -> Tensor:
    return expected * 1.0078125


def test_a_split_that_changes_the_first_layer_too_much_is_incorrect(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(merge: Merge) -> Merge:
        def body(state: UbatchState, layer: int) -> None:
            merge(state, layer)
            state.y_TH = slightly_different(state.y_TH)  # type: ignore[arg-type]

        return body

    replace_merge(monkeypatch, "T2s", scaled)
    found = by_role(one_pass.run(small_case()))["T2s"]
    assert found.check is not None
    assert found.check.passed, "within the oracle's tolerance"
    assert found.reason is not None
    assert found.reason.startswith("differs from the unsplit run by")
    assert correctness.AGREEMENT["nvfp4-w4a16"] < 1 / 128 < correctness.TOLERANCE["nvfp4-w4a16"]


def test_an_output_that_changes_while_timed_is_incorrect_and_loses_its_times(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def drifting(merge: Merge) -> Merge:
        def body(state: UbatchState, layer: int) -> None:
            merge(state, layer)
            calls.append(layer)
            if len(calls) > 4:  # the check's run: two layers, two micro-batches
                state.x_TH = state.x_TH + 1

        return body

    replace_merge(monkeypatch, "T2s", drifting)
    found = by_role(one_pass.run(small_case()))
    assert found["T2s"].status == Status.INCORRECT
    assert found["T2s"].reason == "the last timed iteration's output differs from the checked one"
    assert (found["T2s"].samples_s, found["T2s"].stages) == ((), None)
    assert (found["T1"].status, found["T2o"].status) == (Status.OK, Status.OK)


@pytest.mark.parametrize(("good_calls", "phase"), [(0, "check"), (4, "warm-up")])
def test_a_raise_is_reported_with_phase_variant_and_position(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch, good_calls: int, phase: str
) -> None:
    calls: list[int] = []

    def breaking(merge: Merge) -> Merge:
        def body(state: UbatchState, layer: int) -> None:
            calls.append(layer)
            if len(calls) > good_calls:
                raise RuntimeError("made up")
            merge(state, layer)

        return body

    replace_merge(monkeypatch, "T2s", breaking)
    case = small_case()
    with pytest.raises(CaseFailureError) as ended:
        one_pass.run(case)
    assert (ended.value.phase, ended.value.variant_id) == (phase, variant_id(case.variants[1]))
    assert str(ended.value.__cause__) == "made up"
    index, position = progress_file.read(one_pass.progress)
    assert index == 1
    assert position == 16  # both micro-batches have passed combine, the eighth stage: the first merge is next


def test_a_link_faster_than_the_machine_fails_the_case_before_anything_is_timed(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Targets.build

    def as_if_on_a_gpu(self: Targets, case: Case) -> Target:
        target = build(self, case)
        target.device = torch.device("cuda")
        return target

    monkeypatch.setattr(Targets, "build", as_if_on_a_gpu)
    monkeypatch.setattr("bench.targets.SUSTAIN_SLACK_S", 0.0)
    impossible = Link("paced", 4, (LinkTime("dispatch", 0.0, 1e18), LinkTime("combine", 0.0, 1e18)))
    with pytest.raises(CaseFailureError) as ended:
        one_pass.run(replace(small_case(), link=impossible))
    assert (ended.value.phase, ended.value.variant_id) == ("self-check", None)
    assert "link cannot sustain the model" in str(ended.value.__cause__)


def test_a_layer_that_hands_on_something_else_than_its_sum_is_incorrect(
    one_pass: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """y is right in every layer: only what lies between the layers is not."""

    def forgetful(merge: Merge) -> Merge:
        def body(state: UbatchState, layer: int) -> None:
            x_TH = state.x_TH
            merge(state, layer)
            state.x_TH = x_TH

        return body

    for role in ("T1", "T2s", "T2o"):
        replace_merge(monkeypatch, role, forgetful)
    found = by_role(one_pass.run(small_case()))
    assert {m.status for m in found.values()} == {Status.INCORRECT}
    assert all("layer 0 hands on differs by" in str(m.reason) for m in found.values())
