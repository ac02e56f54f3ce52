"""Two tools' profiles of one case beside each other, and a profile beside the timed passes of its run."""

from dataclasses import replace

import kept_profile
import pytest
import synthetic

from bench import report
from bench.profiling.agreement import agreements
from bench.profiling.kept import Kept, Profiled
from bench.render import html, markdown, timeline_section


@pytest.fixture(scope="module")
def by_torch(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return kept_profile.plant(tmp_path_factory.mktemp("run"))


def slower(one: Profiled, factor: float, stage: str | None = None) -> Profiled:
    """Every iteration, or one stage of it, takes ``factor`` times as long."""
    iterations = tuple(
        replace(m, span_ns=round(m.span_ns * factor))
        if stage is None
        else replace(m, stages_ns=m.stages_ns | {stage: round(m.stages_ns[stage] * factor)})
        for m in one.analysis.iterations
    )
    return replace(one, analysis=replace(one.analysis, iterations=iterations))


def by_nsys(kept: Kept, t2o: float = 1.0, stage: str | None = None) -> Kept:
    profiled = tuple(slower(one, t2o, stage) if one.variant.role == "T2o" else one for one in kept.profiled)
    return replace(kept, tool="nsys", profiled=profiled)


def test_the_same_figures_agree_to_the_last_digit(by_torch: Kept) -> None:
    (found,) = agreements([by_torch, by_nsys(by_torch)])
    assert found.tools == ("torch", "nsys")
    assert found.off_on[0] == found.off_on[1] == pytest.approx(82.34 / 72.40, rel=1e-3)
    assert (found.apart, found.share, found.alike) == (0.0, 0.0, True)


def test_a_ratio_over_three_percent_apart_is_told(by_torch: Kept) -> None:
    for factor, alike in ((1.02, True), (1.04, False)):
        (found,) = agreements([by_torch, by_nsys(by_torch, factor)])
        assert found.apart == pytest.approx(1 - 1 / factor, rel=1e-3)
        assert found.alike is alike


def test_the_stage_whose_share_differs_most_is_named(by_torch: Kept) -> None:
    (found,) = agreements([by_torch, by_nsys(by_torch, 1.2, "gemm1")])
    gemm1 = by_torch.pairs[0].on.analysis.stage_share("gemm1")
    assert (found.stage, found.role) == ("gemm1", "T2o")
    assert found.share == pytest.approx(0.2 * gemm1, rel=1e-3)
    assert found.apart == 0.0
    assert not found.alike


def test_one_tool_twice_and_other_cases_say_nothing_of_tools(by_torch: Kept) -> None:
    assert agreements([by_torch, by_torch]) == []
    workload = replace(by_torch.case.workload, tokens=4096)
    assert agreements([by_torch, replace(by_nsys(by_torch), case=replace(by_torch.case, workload=workload))]) == []


def test_the_report_tells_it_above_the_timelines(by_torch: Kept) -> None:
    trials = synthetic.Builder(passes=2, pairs=2).trials([kept_profile.case()])
    model = report.build(synthetic.StubRun(trials))
    both = replace(model, timelines=(by_torch, by_nsys(by_torch, 1.04)))
    said = "torch and nsys do not agree within 3 % (streams x2 triton): T1 / T2o is 1.137 and 1.094, 3.85 % apart; "
    for shown in (html.page(both), markdown.page(both)):
        assert (
            shown.index("Timelines")
            < shown.index(said)
            < shown.index("Shares of the span" if "##" in shown else "span,")
        )
    assert "agree within" not in html.page(replace(model, timelines=(by_torch,)))


def test_a_span_is_told_beside_the_timed_median(by_torch: Kept) -> None:
    trials = synthetic.Builder(passes=2, pairs=2).trials([kept_profile.case()])
    times = timeline_section.timed(report.build(synthetic.StubRun(trials)))
    assert {variant.role for _, variant in times} == {"T1", "T2s", "T2o"}
    known = {(by_torch.case.case_id, one.variant): one.analysis.span_ns * 1e-9 / 1.25 for one in by_torch.profiled[:2]}
    (block,) = timeline_section.of(by_torch, known)
    rows = {row[0]: row[1:] for row in block.tables[0].rows}
    assert rows["span against the timed median"] == ("+25.0 %", "+25.0 %", "n/a")
    (unknown,) = timeline_section.of(by_torch)
    assert "span against the timed median" not in {row[0] for row in unknown.tables[0].rows}


def test_a_report_names_the_profiles_that_would_explain_its_headline(by_torch: Kept) -> None:
    trials = synthetic.Builder(passes=5).trials(synthetic.cases((256, 1024, 4096), ("nvfp4-w4a16",)))
    model = report.build(synthetic.StubRun(trials))
    assert [row.tokens for row in model.telling] == [256, 4096], "where it does not pay yet, and what is quoted"
    asked = [f"bench profile runs/synthetic --case {row.comparison.case_id}" for row in model.telling]
    for shown in (html.page(model), markdown.page(model)):
        assert "\n".join(asked) in shown
    quoted = next(case for case in synthetic.cases((4096,), ("nvfp4-w4a16",)))
    there = replace(model, timelines=(replace(by_torch, case=quoted),))
    assert timeline_section.missing(there) == asked[:1]
    assert asked[1] not in markdown.page(there)
    on_cpu = synthetic.Builder(machine=synthetic.CPU, passes=2).trials(synthetic.cases((64,)))
    assert report.build(synthetic.StubRun(on_cpu)).telling == ()
