"""Layers with attention through one pass: checked, timed and stamped; what attention gets wrong is found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from one_pass import Pass, by_role
from small_sweep import small_case
from torch import Tensor

from bench import targets
from bench.cases import Case, with_companions
from bench.results import Status
from bench.targets import Targets
from moe_impl.attention import AttentionLayer, AttentionStandIn, draw_attention
from moe_impl.attention_shapes import AttentionShape, GqaShape, MlaShape, Phase
from moe_impl.options import Attention, Variant, Workload
from moe_impl.variant_run import VariantRun

CPU = torch.device("cpu")
MLA, GQA = MlaShape(4, 32, 32, 16, 8, 16), GqaShape(4, 2, 16)


def case_with(shape: AttentionShape = GQA, phase: Phase = "prefill", context: int = 24) -> Case:
    case = small_case(tokens=17)
    attention = Attention(context, phase, shape)
    workload = replace(case.workload, precision="bf16", dispatch_dtype=None, attention=attention)
    variants = dict.fromkeys(
        one
        for engine in ("streams", "threads")
        for one in with_companions(Variant("torch", engine=engine))  # type: ignore[arg-type]
    )
    return Case(workload, case.link, tuple(variants))


@pytest.mark.parametrize(("shape", "phase"), [(MLA, "prefill"), (MLA, "decode"), (GQA, "prefill"), (GQA, "decode")])
def test_a_case_with_attention_is_checked_timed_and_stamped(
    shape: AttentionShape, phase: Phase, tmp_path: Path
) -> None:
    trial = Pass(tmp_path).run(case_with(shape, phase))
    for m in trial.measurements:
        assert (m.status, m.reason) == (Status.OK, None)
        assert m.stages is not None
        ran = m.variant.split_factor
        assert [len(row) for row in m.stages.op_s["attention"]] == [ran, ran]
        assert any(label.startswith(f"attention stand-in: {shape.kind} {phase} over 24 ") for label in m.labels)


def test_the_oracle_is_asked_about_what_attention_made() -> None:
    target = Targets(CPU).build(case_with())
    for variant in (Variant("torch").unsplit(), Variant("torch")):
        _, traces = target.run(variant, lambda position: None).traced()
        x_TH = target._inputs.x_TH
        made = target._attention.run(x_TH, slice(0, 17), 0).float()  # type: ignore[union-attr]
        expected = x_TH.float() + made / made.square().mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(traces[0].x_TH.float(), expected, rtol=2**-6, atol=2**-6)


def test_no_backend_is_batch_invariant_behind_a_projection() -> None:
    bare, behind = (Targets(CPU).build(case) for case in (small_case(), case_with()))
    for target in (bare, behind):
        target._backend(Variant("torch")).batch_invariant = True
    assert bare.batch_invariant(Variant("torch"))
    assert not behind.batch_invariant(Variant("torch"))
    assert behind.deterministic(Variant("torch"))


def reading_the_first_caches(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """As if a micro-batch forgot which tokens it holds."""

    def body(self: AttentionStandIn, x_TH: Tensor, tokens: slice, layer: int) -> Tensor:
        return run(self, x_TH, slice(0, len(x_TH)), layer)

    return body


def test_a_micro_batch_that_reads_another_ones_caches_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle cannot see it: the MoE is right about what it was given."""
    monkeypatch.setattr(AttentionStandIn, "run", reading_the_first_caches(AttentionStandIn.run))
    found = by_role(Pass(tmp_path).run(case_with(phase="decode")))
    assert found["T1"].status == Status.OK
    assert found["T2s"].status == Status.INCORRECT
    assert str(found["T2s"].reason).startswith("attention of layer 0 differs by ")
    assert found["T2s"].check is not None
    assert found["T2s"].check.passed


def test_an_output_that_is_not_finite_is_incorrect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttentionStandIn, "run", lambda self, x_TH, tokens, layer: x_TH * torch.nan)
    assert {m.status for m in Pass(tmp_path).run(case_with()).measurements} == {Status.INCORRECT}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(attention, layer) of every draw."""
    seen: list[tuple[str, int]] = []

    def counting(workload: Workload, layer: int, device: torch.device) -> AttentionLayer:
        seen.append((str(workload.attention), layer))
        return draw_attention(workload, layer, device)

    monkeypatch.setattr(targets, "draw_attention", counting)
    return seen


def with_tokens(case: Case, tokens: int) -> Case:
    return replace(case, workload=replace(case.workload, tokens=tokens))


def test_prefill_draws_once_for_every_token_count_and_decode_for_each(drawn: list[tuple[str, int]]) -> None:
    shared = Targets(CPU)
    for phase in ("prefill", "decode"):
        for tokens in (16, 32, 32):
            shared.build(with_tokens(case_with(phase=phase), tokens))  # type: ignore[arg-type]
    both = [0, 1]
    assert drawn == [("prefill-24", layer) for layer in both] + [("decode-24", layer) for layer in both * 2]


def test_a_case_without_attention_lets_the_weights_go(drawn: list[tuple[str, int]]) -> None:
    shared, case = Targets(CPU), case_with()
    shared.build(case)
    shared.build(small_case())
    assert shared._attention == []
    shared.build(case)
    assert len(drawn) == 4


def test_runs_on_one_lane_or_two_threads_give_the_same_bits() -> None:
    target = Targets(CPU).build(case_with(MLA))
    runs: dict[str, VariantRun] = {
        engine: target.run(Variant("torch", engine=engine), lambda position: None)  # type: ignore[arg-type]
        for engine in ("serial", "streams", "threads")
    }
    finals = [run() for run in runs.values()]
    assert torch.equal(finals[0], finals[1])
    assert torch.equal(finals[0], finals[2])
