"""Backends side by side: the GEMMs of T1 by backend, what is compared with what, and the table that says so."""

import io
import json
from dataclasses import replace

import pytest
import synthetic
from rich.console import Console

from bench import report
from bench.cases import Case
from bench.deciding.backends import Backends, backends
from bench.deciding.join import by_case
from bench.render import backends as rendered
from bench.render import document, html, markdown, terminal
from bench.report_model import ReportModel
from bench.results import Measurement, StageTimes, Status, Trial
from moe_impl.links import LOCAL
from moe_impl.options import Variant, Workload
from moe_impl.stages import Stage

FASTER = {"torch": 1.0, "triton": 2.0, "humming": 2.5}
CEILINGS = {"copy_bytes_per_s": 3e12, "bf16_flops_per_s": 700e12}
LAYER_S = synthetic.Truth(fixed_s=0.9e-3 / 0.28, per_token_s=0.0)
"""Its two GEMMs take 0.9 ms a layer at any token count."""


def _scaled(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    """GEMMs as fast as FASTER says, a little more so in later passes."""
    assert m.stages is not None
    factor = FASTER[m.variant.experts] * (1 + 0.01 * pass_index * (m.variant.experts == "humming"))
    gemms = {stage: [[s / factor for s in row] for row in m.stages.op_s[stage]] for stage in (Stage.GEMM1, Stage.GEMM2)}
    return replace(m, stages=StageTimes(m.stages.span_s, {**m.stages.op_s, **gemms}))


def trials(*variants: Variant, tokens: tuple[int, ...] = (64, 1024)) -> list[Trial]:
    builder = synthetic.Builder(passes=3, pairs=2, truth=LAYER_S, instrumented=1.0, change=_scaled)
    cases = [Case(synthetic.workload(count, "nvfp4-w4a16"), LOCAL, variants) for count in tokens]
    return builder.trials(cases)


T1 = tuple(Variant(name).unsplit() for name in FASTER)


def found_in(*variants: Variant) -> tuple[Backends, ...]:
    return backends(by_case(trials(*variants)).values(), CEILINGS)


def test_both_gemms_of_a_layer_and_the_first_ones_time_over_each() -> None:
    found = found_in(*T1)
    assert [one.workload.tokens for one in found] == [64, 1024]
    for one in found:
        torch, triton, humming = one.times
        assert torch.seconds == pytest.approx(0.9e-3)
        assert triton.seconds == pytest.approx(0.45e-3)
        assert torch.speedup == (1.0, 1.0, 1.0)
        assert triton.speedup == pytest.approx((2.0, 2.0, 2.0))
        assert humming.speedup == pytest.approx((2.525, 2.5, 2.55))
        assert triton.roofline == pytest.approx(2 * torch.roofline)
    assert found[1].times[0].roofline > found[0].times[0].roofline


def test_the_share_of_the_roofline_is_that_of_both_gemms_together() -> None:
    """64 tokens a rank hit every expert, so NVFP4 weights are most of what must move; 1024 have more to compute."""
    few, many = found_in(*T1)
    weights_s = 32 * 3 * 7168 * 2048 * 0.5625 / 3e12
    assert few.times[0].roofline is not None
    assert weights_s < few.times[0].roofline * 0.9e-3 < 1.2 * weights_s
    assert many.times[0].roofline == pytest.approx(6 * 1024 * 8 * 7168 * 2048 / 700e12 / 0.9e-3)


def test_only_unsplit_runs_that_differ_in_the_backend_alone_are_compared() -> None:
    assert found_in(T1[0]) == ()
    assert found_in(T1[0], replace(T1[1], launch="graph")) == ()
    assert found_in(T1[0], replace(Variant("triton"), engine="serial")) == ()
    graphs = tuple(replace(one, launch="graph") for one in T1[:2])
    eager, graph, *_ = found_in(*T1[:2], *graphs)
    assert ({one.variant.launch for one in eager.times}, {one.variant.launch for one in graph.times}) == (
        {"eager"},
        {"graph"},
    )


def test_what_was_not_timed_or_has_no_stage_times_is_left_out() -> None:
    def without(m: Measurement) -> Measurement:
        if m.variant.experts == "humming":
            return synthetic.failed(m, Status.SKIPPED, "no package")
        return replace(m, stages=None) if m.variant.experts == "torch" else m

    kept = [replace(trial, measurements=tuple(map(without, trial.measurements))) for trial in trials(*T1)]
    assert backends(by_case(kept).values(), CEILINGS) == ()


def test_without_measured_ceilings_there_is_no_roofline() -> None:
    for one in backends(by_case(trials(*T1)).values(), {}):
        assert {time.roofline for time in one.times} == {None}


def test_all_token_counts_are_compared_with_one_backend_also_where_it_was_not_timed() -> None:
    """Else a row would hold another ratio than its column says."""

    def out_of_memory(m: Measurement) -> Measurement:
        return synthetic.failed(m, Status.OOM, "no room") if m.variant.experts == "torch" else m

    large = [
        replace(trial, measurements=tuple(map(out_of_memory, trial.measurements)))
        if trial.workload.tokens == 1024
        else trial
        for trial in trials(*T1)
    ]
    few, many = backends(by_case(large).values(), CEILINGS)
    assert {one.reference.experts for one in (few, many)} == {"torch"}
    assert [time.speedup for time in many.times] == [None, None]
    assert [time.spread for time in many.times] == [0.0, 0.0]
    (table,) = rendered.tables(report.build(synthetic.StubRun(large)))
    assert table.headers[4] == "torch / triton"
    assert [row[4] for row in table.rows] == ["2.00", "n/a"]
    assert table.rows[1][1] == "n/a"


@pytest.fixture(scope="module")
def model() -> ReportModel:
    return report.build(synthetic.StubRun(trials(*T1)))


def test_the_table_names_what_each_number_is(model: ReportModel) -> None:
    (table,) = rendered.tables(model)
    assert table.title == "Backends: nvfp4-w4a16 · deepseek-v3, EP8, 2 layers · link local"
    assert table.headers == (
        "tokens",
        *("torch us", "torch of roofline"),
        *("triton us", "torch / triton", "triton of roofline"),
        *("humming us", "torch / humming", "humming of roofline"),
    )
    assert [row[0] for row in table.rows] == ["64", "1024"]
    assert table.rows[0][1:6] == ("900.0", "n/a", "450.0", "2.00", "n/a"), "StubRun has no measured ceilings"
    about, apart, errors = table.notes
    assert "Launch eager, receive worst_case." in about
    assert apart == "The ratios of two passes differ by up to 1.98 %."
    assert errors == "Largest error against the oracle: torch 1.0e-03, triton 1.0e-03, humming 1.0e-03."


def test_every_output_has_it(model: ReportModel) -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(terminal.summary(model))
    for text in (markdown.page(model), html.page(model), console.export_text()):
        assert "Backends: nvfp4-w4a16" in text
        assert "Largest error against the oracle" in text
    told = json.loads(json.dumps(document.document(model), allow_nan=False))["backends"]
    assert [one["workload"]["tokens"] for one in told] == [64, 1024]
    assert [gemms["variant"]["experts"] for gemms in told[0]["gemms"]] == list(FASTER)
    assert told[0]["gemms"][1]["speedup"] == pytest.approx([2.0, 2.0, 2.0])
