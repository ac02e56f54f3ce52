"""What a report tells beside verdicts: failures first, memory, clocks and power, limits, and what repeats a figure."""

import io
import shlex
from dataclasses import replace

import synthetic
from rich.console import Console

from bench import filters, report
from bench.naming import terms_for
from bench.render import document, html, limits, markdown, missing, plots, sentences, tables, terminal
from bench.report_model import ReportModel
from bench.results import Measurement, Status, Trial
from bench.telemetry import GpuState
from moe_impl.links import LOCAL
from moe_impl.options import Workload

TOKENS = (256, 1024, 4096)
PRECISIONS = ("nvfp4-w4a16", "bf16")


def built(trials: list[Trial]) -> ReportModel:
    return report.build(synthetic.StubRun(trials))


def test_failures_are_told_right_under_the_headline() -> None:
    def trouble(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        if m.role == "T2o" and work.tokens == 1024 and pass_index < 2:
            return synthetic.failed(m, Status.OOM, "CUDA out of memory")
        if m.role == "T2o" and work.tokens == 4096 and pass_index == 1:
            return synthetic.failed(m, Status.HANG, "no progress")
        return m

    cases = synthetic.cases(TOKENS)
    found = built(synthetic.Builder(change=trouble).trials(cases))
    said = "3 measurements failed (2 oom, 1 hang), at 1024 and 4096 tokens: see Failed."
    assert missing.gaps(found) == [said, *missing.coverage(found)]
    lines = markdown.page(found).splitlines()
    assert lines.index(f"**{said}**") == lines.index(f"**{markdown.plain(sentences.headline(found))}**") + 2
    page = html.page(found)
    assert page.index("headline") < page.index(said) < page.index("<h2>Answers")
    assert missing.gaps(built(synthetic.Builder().trials(cases))) == []


def test_one_pass_has_no_interval_to_be_sure_of() -> None:
    one, two = (built(synthetic.Builder(passes=n).trials(synthetic.cases((4096,)))) for n in (1, 2))
    assert "intervals" not in sentences.headline(one)
    assert "(99 % intervals over 2 passes)" in sentences.headline(two)


def test_memory_is_off_beside_on() -> None:
    found = built(synthetic.Builder(passes=2).trials(synthetic.cases((256, 1024), splits=(4,))))
    table = tables.memory(found.sections[0])
    assert table is not None
    assert table.rows == (
        ("off (T1)", "1,024 MiB", "1,024 MiB"),
        ("on (T2o)", "256 MiB", "256 MiB"),
        ("on / off", "0.25", "0.25"),
    )


STATES = (
    GpuState(1.98e9, 400.0, 40.0, ()),
    GpuState(1.70e9, 690.0, 60.0, ("SwPowerCap",)),
    GpuState(1.90e9, 650.0, 55.0, ()),
    GpuState(None, None, None, None),
)


def test_clocks_and_power_are_told_where_the_gpu_said_them() -> None:
    trials = synthetic.Builder(passes=2).trials(synthetic.cases((256, 1024)))
    found = built([replace(trial, telemetry=STATES if trial.workload.tokens == 1024 else ()) for trial in trials])
    table = tables.clocks(found.sections[0])
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["SM clock, MHz: median"] == ("n/a", "1900")
    assert rows["SM clock, MHz: lowest"] == ("n/a", "1700")
    assert rows["power, W: median"] == ("n/a", "650")
    assert rows["power, W: highest"] == ("n/a", "690")
    assert rows["temperature, °C: highest"] == ("n/a", "60")
    assert rows["slowed down"] == ("n/a", "33.3 %"), "of the moments in which the GPU said whether it was"
    assert rows["moments asked"] == ("0", "8")
    assert "Slowed down by SwPowerCap." in table.notes
    told = {row["workload"]["tokens"]: row["gpu"] for row in document.document(found)["comparisons"]}
    assert told[256] is None
    assert told[1024]["power_w"] == {"lowest": 400.0, "median": 650.0, "highest": 690.0}
    assert "SM clock" in html.page(found)
    assert "SM clock" in markdown.page(found)
    assert tables.clocks(built(trials).sections[0]) is None


def test_limits_follow_from_what_was_run() -> None:
    modelled = limits.of(built(synthetic.Builder().trials(synthetic.cases((1024,), ("nvfp4-w4a16",)))))
    for begin in (
        "Communication is a model",
        "The link's figures",
        "NVFP4 products",
        "One GPU plays one rank",
        "A few",
    ):
        assert any(line.startswith(begin) for line in modelled), begin
    cases = [replace(case, link=LOCAL) for case in synthetic.cases((1024,))]
    for line in limits.of(built(synthetic.Builder().trials(cases))):
        assert not line.startswith(("Communication is a model", "The link's figures", "NVFP4"))
    silent = "Clocks and power were not watched: a GPU that was slowed down would not show."
    assert silent in modelled
    trials = synthetic.Builder(passes=2).trials(cases)
    watched = [replace(trial, telemetry=STATES) for trial in trials]
    assert not any("watched" in line for line in limits.of(built(watched)))
    assert any(
        line.startswith("Clocks and power were not watched in 50 % of the Trials: ")
        for line in limits.of(built([watched[0], trials[1]]))
    )
    on_cpu = built(synthetic.Builder(machine=synthetic.CPU, passes=2).trials(synthetic.cases((64,))))
    assert limits.of(on_cpu) == ["Nothing about time: a CPU runs the stages one after the other."]
    assert "## Limits" in markdown.page(on_cpu)
    assert "<h2>Limits</h2>" in html.page(on_cpu)


def test_every_figure_has_the_command_that_measures_it_again() -> None:
    cases = synthetic.cases((256,), PRECISIONS, (2, 4))
    found = built(synthetic.Builder(passes=2, pairs=2).trials(cases))
    pictures = plots.of(found)
    assert [picture.series is None for picture in pictures] == [True, False, False, False, False]
    for picture in pictures:
        terms = shlex.split(picture.command)[-1] if "--filter" in picture.command else ""
        alike = {
            (s.series.workload.precision, s.series.variant)
            for s in found.sections
            if picture.series in (None, s.series)
        }
        chosen = [
            replace(case, variants=tuple(v for v in case.variants if (case.workload.precision, v) in alike))
            for case in cases
        ]
        assert terms == terms_for([case for case in chosen if case.variants], cases)
        assert f"Repeat: <code>{picture.command}</code>" in html.page(found, [picture])
        assert f"Repeat: `{picture.command}`" in markdown.page(found, [picture])


def test_such_a_filter_keeps_that_series_and_nothing_else() -> None:
    cases = synthetic.cases(TOKENS, PRECISIONS, (2, 4))
    for precision in PRECISIONS:
        for split_factor in (2, 4):
            chosen = [
                replace(case, variants=tuple(v for v in case.variants if v.split_factor == split_factor))
                for case in cases
                if case.workload.precision == precision
            ]
            kept = filters.select(cases, terms_for(chosen, cases))
            assert [case.workload.tokens for case in kept] == list(TOKENS)
            overlapped = {v for case in kept for v in case.variants if v.role == "T2o"}
            assert {(case.workload.precision, v.split_factor) for case in kept for v in overlapped} == {
                (precision, split_factor)
            }
    assert terms_for(cases, cases) == ""


def test_the_terminal_tells_failures_too() -> None:
    builder = synthetic.Builder(passes=2, change=lambda m, p, w: synthetic.failed(m) if p == 0 else m)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(terminal.summary(built(builder.trials(synthetic.cases((256,))))))
    assert "3 measurements failed (3 error), at 256 tokens: see Failed." in console.export_text()
