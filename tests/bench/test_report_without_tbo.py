"""Reports of runs in which TBO did not run: T1 alone, or a variant that turned itself off."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from rich.console import Console

from bench import report
from bench.deciding.compare import Verdict
from bench.render import alone as alone_tables
from bench.render import document, files, html, limits, markdown, plots, sentences, tables, terminal
from bench.report_model import ReportModel
from bench.results import Measurement
from moe_impl.options import Workload
from moe_impl.support import TBO_OFF


def t1_alone(**settings: object) -> ReportModel:
    cases = [replace(case, variants=case.variants[:1]) for case in synthetic.cases((256, 1024))]
    return report.build(synthetic.StubRun(synthetic.Builder(**settings).trials(cases)))  # type: ignore[arg-type]


def texts(model: ReportModel) -> list[str]:
    console = Console(width=400, highlight=False, force_terminal=False, record=True, file=io.StringIO())
    console.print(terminal.summary(model))
    return [console.export_text(), markdown.page(model), html.page(model)]


def test_t1_alone_is_said_plainly_with_its_times_and_their_mode() -> None:
    model = t1_alone()
    said = "No verdict: T1 alone, no overlapped variant to compare with."
    assert sentences.headline(model) == said
    (told,) = alone_tables.tables(model)
    assert told.title == "off torch, bf16 · deepseek-v3, EP8, 2 layers · link paced h800-nvlink-ep8"
    assert told.headers == ("tokens", "ms"), "nothing was measured twice"
    assert [tokens for tokens, _ in told.rows] == ["256", "1024"]
    for needed in ("launch eager, receive worst_case, timer cuda_event", "modelled comm"):
        assert needed in told.notes[-1]
    for text in texts(model):
        for needed in (said, told.title, told.notes[-1], *(milliseconds for _, milliseconds in told.rows)):
            assert needed in text
    assert plots.of(model) == []


def test_its_limits_are_those_of_what_ran() -> None:
    said = limits.of(t1_alone())
    assert any(line.startswith("Communication is a model") for line in said)
    assert any(line.startswith("One GPU plays one rank") for line in said)


def test_its_times_are_the_medians_of_all_passes() -> None:
    model = t1_alone(noise=synthetic.Noise(0.0, 0.0))
    (found,) = model.alone
    (case, _) = synthetic.cases((256, 1024))
    assert found.times_s[0] == (
        256,
        pytest.approx(synthetic.Truth().span_s(case.workload, case.link, case.variants[0])),
    )
    told = json.loads(json.dumps(document.document(model), allow_nan=False))
    assert told["comparisons"] == []
    assert list(told["alone"][0]["median_s"]) == ["256", "1024"]
    assert "tokens" not in told["alone"][0]["workload"]


def test_on_a_cpu_the_banner_still_comes_first() -> None:
    model = t1_alone(machine=synthetic.CPU, passes=1, pairs=2)
    assert sentences.headline(model).startswith("Functional check on a CPU, no performance claim.")
    assert sentences.headline(model).endswith("No verdict: T1 alone, no overlapped variant to compare with.")


def test_t1_alone_leaves_every_file(tmp_path: Path) -> None:
    assert [path.name for path in files.write(t1_alone(), tmp_path)] == ["report.html", "report.md"]


def test_t1_and_t2s_alone_are_named_both() -> None:
    cases = [replace(case, variants=case.variants[:2]) for case in synthetic.cases((256,))]
    model = report.build(synthetic.StubRun(synthetic.Builder(passes=1, pairs=1).trials(cases)))
    assert sentences.headline(model) == "No verdict: T1 and T2s alone, no overlapped variant to compare with."
    assert len(alone_tables.tables(model)) == 2


def test_a_run_with_an_overlapped_variant_lists_nothing_alone() -> None:
    trials = synthetic.Builder(passes=1, pairs=1).trials(synthetic.cases((256,)))
    model = report.build(synthetic.StubRun(trials))
    assert model.alone == ()
    assert alone_tables.tables(model) == []


@pytest.fixture(scope="module")
def partly_off() -> ReportModel:
    """TBO turned itself off at 256 tokens, and looks fast there; it pays at 4096 and not at 1024."""

    def off(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        if work.tokens > 256 or m.role == "T1":
            return m
        m = replace(m, effective_split_factor=1, limits=(*m.limits, TBO_OFF), labels=(*m.labels, TBO_OFF))
        return synthetic.rescaled(m, 0.3)

    return report.build(synthetic.StubRun(synthetic.Builder(change=off).trials(synthetic.cases((256, 1024, 4096)))))


def test_rows_that_turned_tbo_off_say_so_and_get_no_verdict(partly_off: ReportModel) -> None:
    (section,) = partly_off.sections
    assert section.rows[0].comparison.verdict is Verdict.UNDECIDED
    for table in tables.of(section):
        assert f"{TBO_OFF} (at 256)." in table.notes[-1]
    for picture in plots.of(partly_off):
        assert f"{TBO_OFF} (at 256)" in " ".join(re.findall(r">([^<>]+)</text>", picture.svg))


def test_rows_that_turned_tbo_off_are_never_quoted(partly_off: ReportModel) -> None:
    (section,) = partly_off.sections
    assert section.rows[0].comparison.speedup == max(row.comparison.speedup or 0 for row in section.rows)
    assert section.best is section.rows[2]
    assert sentences.headline(partly_off).startswith("TBO (streams x2 torch, bf16) pays from 4096 tokens on: ")
    assert "256" not in sentences.headline(partly_off)
    nothing_faster = replace(section, rows=section.rows[:2])
    assert nothing_faster.best is section.rows[1]
