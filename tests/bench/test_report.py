"""The report: what it says first, what it never leaves out, and that every output is safe and self-contained."""

import io
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from rich.console import Console

from bench import report
from bench.deciding.break_even import Kind
from bench.errors import BenchError
from bench.render import (
    break_even,
    document,
    drawing,
    files,
    html,
    markdown,
    missing,
    noise,
    plots,
    sentences,
    tables,
    terminal,
    words,
)
from bench.report_model import ReportModel
from bench.results import PERTURBED, Measurement, Status, Traffic
from moe_impl.links import LOCAL
from moe_impl.options import SkewedRouting, Workload
from moe_impl.support import BF16_TRAFFIC, CPU_ONLY, EMULATED, MODELLED_COMM

SNAPSHOT = Path(__file__).parents[1] / "data" / "report_synthetic.md"
TOKENS = (256, 1024, 4096)


def some_trouble(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    """x4 runs out of memory at the largest token count from the third pass on; at the smallest it is skipped."""
    if m.variant.split_factor == 4 and m.role == "T2o":
        if work.tokens == TOKENS[-1] and pass_index >= 2:
            return synthetic.failed(m, Status.OOM, "CUDA out of memory\n  <in> phase check")
        if work.tokens == TOKENS[0]:
            return synthetic.failed(m, Status.SKIPPED, "cannot fill | 4 micro-batches")
    return m


@pytest.fixture(scope="module")
def model() -> ReportModel:
    builder = synthetic.Builder(change=some_trouble)
    return report.build(synthetic.StubRun(builder.trials(synthetic.cases(TOKENS, ("nvfp4-w4a16",), (2, 4)))))


@pytest.fixture(scope="module")
def cpu_model() -> ReportModel:
    builder = synthetic.Builder(machine=synthetic.CPU, passes=2, pairs=2)
    return report.build(synthetic.StubRun(builder.trials(synthetic.cases((16, 64)))))


def printed(model: ReportModel, width: int) -> str:
    console = Console(width=width, highlight=False, force_terminal=False, record=True, file=io.StringIO())
    console.print(terminal.summary(model))
    return console.export_text()


def test_the_first_line_is_the_verdict(model: ReportModel) -> None:
    best = model.sections[0].rows[-1].comparison
    said = sentences.headline(model)
    assert said.startswith("TBO (streams x2 triton, nvfp4-w4a16) pays from 1024 tokens on: ")
    quoted = f"{best.speedup:.3f}x [{best.low:.3f}, {best.high:.3f}] at 4096; slower up to 256"
    assert f"{quoted} (95 % intervals over 5 passes). " in said
    for text in (printed(model, 300), markdown.page(model), html.page(model)):
        assert said in text


def test_the_markdown_report_is_as_reviewed(model: ReportModel) -> None:
    assert markdown.page(model) == SNAPSHOT.read_text(encoding="utf-8")


def test_what_ranks_receive_is_told_where_it_is_unlike() -> None:
    cases = [
        replace(case, workload=replace(case.workload, routing=SkewedRouting("zipf", 1.0)))
        for case in synthetic.cases(TOKENS)
    ]
    trials = synthetic.Builder(passes=2, pairs=2).trials(cases)
    said = "Routing zipf-1-hottest: rank 3 or 1 receives 1.5x to 1.8x the mean rank's rows (any rank at most 1.9x)"
    for counted, more in ((6.25, ", its busiest expert 6.2x the mean expert's pairs."), (None, ".")):
        traffic = {
            tokens: Traffic(rows, 9, (1, 2), counted, rank, (60.0, 30.0, 0.0, 80.0), 80 * 4 / 170)
            for tokens, rank, rows in zip(TOKENS, (3, 1, 3), (76.5, 63.75, 70.0), strict=True)
        }
        unlike = [replace(trial, traffic=traffic[trial.workload.tokens]) for trial in trials]
        found = report.build(synthetic.StubRun(unlike))
        assert said + more in markdown.page(found)
        assert said + more in tables.decision(found.sections[0]).notes
        rows = document.document(found)["comparisons"]
        assert [row["traffic"]["rank_rows"] for row in rows] == [(60.0, 30.0, 0.0, 80.0)] * 3
    alike = [replace(trial, traffic=Traffic(50.0, 9, (1, 2), 1.3)) for trial in trials]
    for silent in (trials, alike):
        section = report.build(synthetic.StubRun(silent)).sections[0]
        assert not any("mean rank" in note for note in tables.decision(section).notes)


def test_no_failure_or_skip_is_left_out(model: ReportModel) -> None:
    (failure,), (skip,) = model.failures, model.skips
    assert (failure.status, failure.passes) == (Status.OOM, (2, 3, 4))
    assert skip.passes == (0, 1, 2, 3, 4)
    for text in (printed(model, 200), markdown.page(model)):
        assert "oom in pass 3, 4 and 5: CUDA out of memory <in> phase check" in text.replace("\\<", "<")
        assert "4 micro-batches" in text
    assert failure.command == (
        "bench sweep runs/synthetic/config.resolved.yaml --out runs/synthetic --resume --device cuda "
        "--filter tokens=4096,precision=nvfp4-w4a16,link=h800-nvlink-ep8,experts=triton,split_factor=4"
    )


def test_markdown_hides_nothing_that_looks_like_its_own_signs(model: ReportModel) -> None:
    lines = markdown.page(model).splitlines()
    assert any(r"memory \<in> phase" in line for line in lines)
    tables_of_page = [line for line in lines if line.startswith("|")]
    assert all(line.endswith("|") for line in tables_of_page)
    assert any(r"cannot fill \| 4 micro-batches" in line for line in lines)


def test_html_escapes_what_it_shows(model: ReportModel) -> None:
    page = html.page(replace(model, question="<script>alert(1)</script>"))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "memory &lt;in&gt; phase" in page


def test_labels_stand_wherever_numbers_do(model: ReportModel) -> None:
    needed = [EMULATED, MODELLED_COMM, "hypothetical: link of H800", "timer cuda_event", "launch eager"]
    for section in model.sections:
        for table in tables.of(section):
            assert all(label in table.notes[-1] for label in needed)
    for picture in plots.of(model):
        drawn = " ".join(re.findall(r">([^<>]+)</text>", picture.svg))
        assert all(label in drawn for label in needed[:3])


def test_unknown_is_said_and_never_zero(cpu_model: ReportModel) -> None:
    stages = {row[0]: row[1:] for row in tables.explanation(cpu_model.sections[0]).rows}
    assert stages["efficiency"] == ("n/a", "n/a")
    assert tables.memory(cpu_model.sections[0]) is None
    assert tables.clocks(cpu_model.sections[0]) is None
    assert stages["ideal, SMs shared, ms"] == ("n/a", "n/a")
    assert ("gpu.driver", "unknown") in tables.environment(cpu_model).rows


def test_a_cpu_report_makes_no_claim(cpu_model: ReportModel) -> None:
    for text in (printed(cpu_model, 80), markdown.page(cpu_model), html.page(cpu_model)):
        assert "Functional check on a CPU, no performance claim. 12 of 12 oracle checks passed." in text
        assert "pays from" not in text
        assert "FASTER at" not in text
    assert f"UNDECIDED at 16 and 64: {CPU_ONLY}." in " ".join(printed(cpu_model, 80).split())
    for section in cpu_model.sections:
        assert break_even.sentence(section.break_even) == f"Break-even: no claim ({words.limit(CPU_ONLY)})."
    assert words.limit(CPU_ONLY) != CPU_ONLY
    assert all(CPU_ONLY in sentences.caption(section) for section in cpu_model.sections)
    assert all(CPU_ONLY in " ".join(picture.svg.split()) for picture in plots.of(cpu_model))
    assert document.document(cpu_model)["performance_claim"] is False
    assert {section.break_even.kind for section in cpu_model.sections} == {Kind.NO_CLAIM}


def test_a_torch_backend_on_nvfp4_makes_no_claim() -> None:
    case = synthetic.cases((4096,), ("nvfp4-w4a16",))[0]
    torch_variant = replace(synthetic.variant("nvfp4-w4a16"), experts="torch")
    case = replace(case, variants=synthetic.with_t1_and_t2s(torch_variant))
    found = report.build(synthetic.StubRun(synthetic.Builder().trials([case])))
    assert sentences.headline(found) == f"TBO (streams x2 torch, nvfp4-w4a16): no claim, {words.limit(BF16_TRAFFIC)}."
    assert words.limit(BF16_TRAFFIC) != BF16_TRAFFIC


def test_skips_that_differ_in_nothing_else_share_a_line() -> None:
    builder = synthetic.Builder(
        passes=2, pairs=1, change=lambda m, p, w: synthetic.failed(m, Status.SKIPPED, "no GPU") if m.role != "T1" else m
    )
    found = report.build(synthetic.StubRun(builder.trials(synthetic.cases((256, 1024)))))
    assert len(found.skips) == 4
    assert missing.not_timed_together(found.skips) == [
        "256 and 1024 tokens, bf16, paced h800-nvlink-ep8, serial x2 torch, streams x2 torch: "
        "skipped in pass 1 and 2: no GPU"
    ]


def test_the_headline_says_how_the_other_series_do(model: ReportModel) -> None:
    speedups = [row.comparison.speedup for section in model.sections for row in section.rows if row.tokens == 4096]
    said = "Of 2 series, 1 pays from some token count on; at 4096 tokens they lie at "
    fewer = "streams x4 triton, nvfp4-w4a16: 99 % intervals over 2 passes"
    assert sentences.headline(model).endswith(f"{said}{min(speedups):.3f}x to {max(speedups):.3f}x; {fewer}.")
    alone = replace(model, sections=model.sections[:1])
    assert "series" not in sentences.headline(alone)


def test_what_gave_no_time_is_told_by_every_field_in_which_cases_differ() -> None:
    builder = synthetic.Builder(
        passes=2, pairs=1, change=lambda m, p, w: synthetic.failed(m) if w.layers == 4 and m.role == "T2o" else m
    )
    cases = [*synthetic.cases((256,), layers=2), *synthetic.cases((256,), layers=4)]
    found = report.build(synthetic.StubRun(builder.trials(cases)))
    (failure,) = found.failures
    where = "256 tokens, bf16, paced h800-nvlink-ep8, layers=4, streams x2 torch: "
    assert missing.not_timed(failure).startswith(where)
    assert failure.command.endswith(",experts=torch,split_factor=2")
    assert "layers=4" in failure.command


def test_answers_name_their_link_where_there_are_several() -> None:
    (case,) = synthetic.cases((256,))
    local = replace(case, link=LOCAL)
    found = report.build(synthetic.StubRun(synthetic.Builder(passes=2, pairs=1).trials([case, local])))
    assert len(found.panels) == 2
    paced, copied = (sentences.answer(section, found) for section in found.sections)
    assert "link paced h800-nvlink-ep8" in paced
    assert "link local" in copied


def test_many_token_counts_that_are_all_there_are_not_listed() -> None:
    measured = [128, 256, 512, 1024]
    assert words.counts_of(measured, measured) == "all 4"
    assert words.counts_of(measured[1:], measured) == "256, 512 and 1024"
    assert words.counts_of([128], [128]) == "128"
    slower = synthetic.Builder(change=lambda m, p, w: synthetic.rescaled(m, 2.0) if m.role == "T2o" else m, pairs=2)
    found = report.build(synthetic.StubRun(slower.trials(synthetic.cases(measured))))
    assert "(SLOWER at all 4)" in sentences.headline(found)


def test_doubts_are_told_once_a_kind() -> None:
    def doubted(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return replace(m, flags=(f"stage pass perturbed: by {pass_index} %",)) if work.tokens == 256 else m

    trials = synthetic.Builder(change=doubted).trials(synthetic.cases((256, 1024)))
    (section,) = report.build(synthetic.StubRun(trials)).sections
    assert sentences.doubts(section) == ["Doubt at 256: stage pass perturbed."]
    assert "Doubt at 256: stage pass perturbed." in tables.decision(section).notes


def test_a_perturbed_row_shows_no_efficiency_and_no_dilation() -> None:
    def doubted(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return replace(m, flags=(f"{PERTURBED}: 1.2x",)) if (work.tokens, m.role) == (256, "T2s") else m

    trials = synthetic.Builder(change=doubted).trials(synthetic.cases((256, 1024)))
    found = report.build(synthetic.StubRun(trials))
    (section,) = found.sections
    assert [row[-1] == "n/a" for row in tables.decision(section).rows] == [True, False]
    stages = tables.dilation(section)
    assert stages is not None
    assert all(row[1] == "n/a" != row[2] for row in stages.rows)
    told = json.loads(json.dumps(document.document(found), allow_nan=False))["comparisons"][0]["decomposition"]
    assert told["efficiency"] is None
    assert set(told["dilation"].values()) == {None}


def test_every_report_counts_its_oracle_checks(model: ReportModel) -> None:
    said = "67 of 67 oracle checks passed, largest relative error 0.001, tolerance 0.01."
    for text in (printed(model, 200), markdown.page(model), html.page(model)):
        assert said in text
    wrong = synthetic.Builder(passes=2, change=lambda m, p, w: wrong_once(m, p))
    found = report.build(synthetic.StubRun(wrong.trials(synthetic.cases((256,)))))
    assert missing.checks(found) == "5 of 6 oracle checks passed, largest relative error not finite, tolerance 0.01."
    json.dumps(document.document(found), allow_nan=False)


def wrong_once(m: Measurement, pass_index: int) -> Measurement:
    if m.role != "T2o" or pass_index == 0 or m.check is None:
        return m
    return replace(
        m, status=Status.INCORRECT, samples_s=(), check=replace(m.check, relative_error=math.nan, passed=False)
    )


def test_a_complete_run_says_nothing_and_a_cut_one_how_much_it_lacks(model: ReportModel) -> None:
    assert missing.coverage(model) == []
    trials = synthetic.Builder().trials(synthetic.cases((256, 1024), splits=(2, 4)))
    run = synthetic.StubRun(trials)
    (cut,) = missing.coverage(report.build(run, trials[:-3]))
    assert cut == (
        "Incomplete: 7 of 10 Trials (filtered, or not run to the end). "
        "Missing: at 256 tokens in pass 5; at 1024 tokens in pass 4 and 5."
    )
    (short,) = missing.coverage(report.build(run, trials[:4]))
    assert short.endswith(" Missing: every case in pass 3, 4 and 5.")
    cases = synthetic.cases((256, 1024), ("nvfp4-w4a16", "bf16"))
    trials_of_two = synthetic.Builder().trials(cases)
    kept = [t for t in trials_of_two if t.workload.precision != "bf16" or t.pass_index < 4]
    (one,) = missing.coverage(report.build(synthetic.StubRun(trials_of_two), kept))
    assert one.endswith(" Missing: precision=bf16 at 256 and 1024 tokens in pass 5.")
    (narrow,) = missing.coverage(report.build(run, report.only(trials, "split_factor=2")))
    assert narrow.startswith("Incomplete: 10 of 10 Trials, 10 of them without all their variants (")


def test_undecided_is_not_said_as_no() -> None:
    trials = synthetic.Builder(passes=1).trials(synthetic.cases((256, 1024)))
    found = report.build(synthetic.StubRun(trials))
    assert "undecided whether it pays" in sentences.headline(found)
    assert "at no token count" not in markdown.page(found)


def test_a_negative_gain_is_drawn(model: ReportModel) -> None:
    assert "negative gain" not in plots.of(model)[1].svg
    slow = synthetic.Builder(change=lambda m, p, w: synthetic.rescaled(m, 3) if m.role == "T2o" else m)
    found = report.build(synthetic.StubRun(slow.trials(synthetic.cases((256,)))))
    why = found.sections[0].rows[0].decomposition
    assert why is not None
    assert why.gain_s < 0
    assert "negative gain" in plots.of(found)[1].svg


def test_the_legend_of_the_speedups_lies_below_the_axis(model: ReportModel) -> None:
    texts = re.findall(r'<text[^>]*?y="([\d.]+)"[^>]*>([^<]+)<', plots.of(model)[0].svg)
    axis = max(float(y) for y, text in texts if text.startswith("tokens of this rank"))
    legend = [float(y) for y, text in texts if text.startswith("streams x")]
    assert len(legend) == 2
    assert min(legend) > axis


def test_two_noisy_passes_give_bounds_not_digits() -> None:
    loud = synthetic.Noise(sample=0.5, process=0.5)
    trials = synthetic.Builder(noise=loud, passes=2, pairs=2).trials(synthetic.cases((256,)))
    found = report.build(synthetic.StubRun(trials))
    comparison = found.sections[0].rows[0].comparison
    assert comparison.high is not None
    assert comparison.high > 10
    assert words.speedup(comparison).endswith(", >10]")
    (said,) = noise.floor(found)
    assert "over 1,000 %" in said


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(model: ReportModel, cpu_model: ReportModel, width: int) -> None:
    for shown in (model, cpu_model):
        lines = printed(shown, width).splitlines()
        assert max(map(len, map(str.rstrip, lines))) <= width
        rows = [line for line in lines if re.match(r" *\d+ .*(FASTER|SLOWER|SAME|UNDECIDED)", line)]
        assert len(rows) == sum(len(section.rows) for section in shown.sections)
        assert all("]" in row and "…" not in row for row in rows)


def test_the_page_needs_no_network_and_no_script(model: ReportModel) -> None:
    page = html.page(model, plots.of(model))
    assert page.count("<svg") == 3
    assert "<script" not in page
    assert "<link" not in page
    assert re.findall(r"(?:src|href)=\"(?!#)", page) == []
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_pictures_are_svg_that_follows_the_pages_ink(model: ReportModel) -> None:
    pictures = plots.of(model)
    assert [picture.name for picture in pictures] == ["speedup-1", "decomposition-1", "decomposition-2"]
    for picture in pictures:
        ET.fromstring(picture.standalone.encode())
        assert "currentColor" in picture.svg
        assert drawing.INK not in picture.svg
    assert plots.of(model) == pictures


def test_the_speedup_plot_has_one_line_a_series_and_its_break_even(model: ReportModel) -> None:
    drawn = re.findall(r">([^<>]+)</text>", plots.of(model)[0].svg)
    assert {"streams x2 triton, nvfp4-w4a16", "streams x4 triton, nvfp4-w4a16"} <= set(drawn)
    assert any("tokens of this rank" in text for text in drawn)


def test_a_crossing_is_quoted_and_drawn_only_between_close_token_counts(model: ReportModel) -> None:
    near = report.build(synthetic.StubRun(synthetic.Builder().trials(synthetic.cases((512, 1024), ("nvfp4-w4a16",)))))
    for found, close in ((near, True), (model, False)):
        even = found.sections[0].break_even
        drawn = re.findall(r">([^<>]+)</text>", plots.of(found)[0].svg)
        assert even.crossing is not None
        assert (f"≈{words.about(even.crossing)}" in drawn) is close
        assert any("upright lines" in text for text in drawn) is close
        said = break_even.sentence(even)
        assert said.endswith(f"(interpolated between {even.bracket[0]} and {even.bracket[1]})." if close else "tokens.")
    assert break_even.sentence(model.sections[0].break_even) == "Break-even between 256 and 1024 tokens."
    assert words.about(867) == "870"


def test_write_leaves_all_files_and_names_them(model: ReportModel, tmp_path: Path) -> None:
    paths = files.write(model, tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "report.html",
        "report.md",
        "plots/speedup-1.svg",
        "plots/decomposition-1.svg",
        "plots/decomposition-2.svg",
    ]
    linked = re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "report.md").read_text())
    assert len(linked) == 3
    assert all((tmp_path / link).is_file() for link in linked)


def test_write_says_in_one_line_that_it_cannot(model: ReportModel, tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("in the way")
    with pytest.raises(BenchError, match="cannot write the report"):
        files.write(model, tmp_path)


def test_the_document_holds_every_comparison_in_json(model: ReportModel) -> None:
    told = json.loads(json.dumps(document.document(model), allow_nan=False))
    assert len(told["comparisons"]) == 5
    row = told["comparisons"][-1]
    assert (row["workload"]["tokens"], row["verdict"], row["reasons"]) == (
        4096,
        "UNDECIDED",
        ["failed in at least one pass"],
    )
    why = told["comparisons"][0]["decomposition"]
    assert why["net_s"] == why["gain_s"] - why["penalty_s"]
    assert told["break_evens"][0]["smallest_faster"] == 1024
    assert "tokens" not in told["break_evens"][0]["workload"]


def test_a_filter_keeps_a_variant_with_its_own_t1_and_t2s() -> None:
    trials = synthetic.Builder(passes=2, pairs=1).trials(synthetic.cases((256, 1024), splits=(2, 4)))
    kept = report.only(trials, "tokens=1024,split_factor=4,engine=streams")
    assert {trial.workload.tokens for trial in kept} == {1024}
    assert [m.role for m in kept[0].measurements] == ["T1", "T2s", "T2o"]
    assert kept[0].measurements[-1].variant.split_factor == 4
    assert report.only(trials, None) == trials


def test_an_empty_run_is_no_report() -> None:
    with pytest.raises(BenchError, match="no results yet"):
        report.build(synthetic.StubRun([]))


def test_a_run_without_a_timed_variant_gives_no_answer() -> None:
    builder = synthetic.Builder(change=lambda m, p, w: synthetic.failed(m))
    found = report.build(synthetic.StubRun(builder.trials(synthetic.cases((256,)))))
    assert sentences.headline(found) == "No answer: no overlapped variant was timed."
    assert len(found.failures) == 3
    assert plots.of(found) == []


def test_recorded_facts_read_as_words() -> None:
    facts = {"yes": True, "no": False, "unknown": None, "none": {}, "a, 2": ["a", 2], "132": 132}
    assert [words.fact(value) for value in facts.values()] == list(facts)


def test_reports_load_without_torch() -> None:
    code = (
        "import sys, bench.report, bench.render.files, bench.render.terminal, bench.render.document;"
        "import bench.commands.compare, bench.commands.report; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)
