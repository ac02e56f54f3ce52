"""Bisecting a break-even, and its bracket over other links: on made-up runs whose true crossing is known."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from synthetic import Builder, Noise, Truth

from bench import report
from bench.added_cases import FACTORS, Added, base_of, scaled
from bench.cases import Case
from bench.deciding.break_even import break_evens
from bench.deciding.compare import compare_off_on
from bench.refining import NARROW, midpoint, next_tokens, refinements, sensitivities, without_bracket
from bench.render import break_even, document, markdown, tables
from bench.results import Trial
from bench.running import resume
from bench.running.rounds import measure_what_verdicts_ask
from bench.settings import MeasureSettings
from moe_impl.links import HOST_LINK, LOCAL
from moe_impl.options import Link, Variant, Workload

MEASURE = MeasureSettings(refine="break_even", link_sensitivity=True)
TOKENS = (256, 1024, 4096)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_midpoint_is_round_and_inside_or_the_gap_is_narrow(one: int, other: int) -> None:
    low, high = sorted((one, other))
    middle = midpoint(low, high)
    if middle is None:
        assert high <= low * NARROW or high - low < 16
    else:
        assert low < middle < high
        assert middle % max(1, 2 ** ((middle - 1).bit_length() - 2) // 8) == 0


@given(st.integers(1, 2**16), st.integers(1, 2**16), st.floats(0, 1))
def test_bisecting_ends_with_the_crossing_in_a_narrow_gap(one: int, other: int, where: float) -> None:
    low, high = sorted((one, other))
    crossing = low + where * (high - low)
    for _ in range(20):
        middle = midpoint(low, high)
        if middle is None:
            break
        low, high = (middle, high) if middle < crossing else (low, middle)
    assert midpoint(low, high) is None
    assert low <= crossing <= high


@dataclass(frozen=True)
class Planted(Truth):
    """TBO's speed-up is what a test says."""

    speedup: Callable[[int, Link], float] = lambda tokens, link: 1.0

    def span_s(self, work: Workload, link: Link, one: Variant) -> float:
        whole = super().span_s(work, link, one.unsplit())
        return whole / self.speedup(work.tokens, link) if one.role == "T2o" else whole


USUAL = Truth()


def run(cases: list[Case], truth: Truth = USUAL) -> list[Trial]:
    return Builder(truth, Noise(0.001, 0.0001), pairs=4).trials(cases)


def rounds(cases: list[Case], measure: MeasureSettings, truth: Truth = USUAL) -> list[Trial]:
    """Measure what is asked for until nothing is."""
    trials = run(cases, truth)
    for rule in (refinements, sensitivities):
        while found := rule(trials, cases, measure):
            trials += run([refinement.case for refinement in found], truth)
    return trials


class Folder:
    """A run folder in memory, filled by a made-up H100."""

    def __init__(self, trials: list[Trial]) -> None:
        self.stored = trials

    def trials(self) -> list[Trial]:
        return self.stored

    def carry_out(self, names: dict[str, str], todo: resume.Todo) -> None:
        assert names.keys() >= {case.case_id for case in todo[0]}
        self.stored = [*self.stored, *run(list(todo[0]))]


def bracket_of(trials: list[Trial]) -> tuple[int, int]:
    (answer,) = break_evens(compare_off_on(trials, MEASURE))
    assert answer.bracket is not None
    return answer.bracket


def test_the_bracket_is_narrowed_to_an_eighth_within_the_budget() -> None:
    cases = synthetic.cases(TOKENS)
    before = bracket_of(run(cases))
    after = bracket_of(rounds(cases, replace(MEASURE, link_sensitivity=False)))
    assert before in ((256, 1024), (1024, 4096))
    assert after[1] <= after[0] * NARROW
    assert before[0] <= after[0] < after[1] <= before[1]


@pytest.mark.parametrize("crossing", [300, 700, 1500, 3900])
def test_a_planted_crossing_lies_in_the_narrow_bracket_that_is_left(crossing: int) -> None:
    truth = Planted(speedup=lambda tokens, link: tokens / crossing)
    low, high = bracket_of(rounds(synthetic.cases(TOKENS), replace(MEASURE, link_sensitivity=False), truth))
    assert low < crossing < high <= low * NARROW


def test_where_the_crossing_is_too_flat_to_decide_the_bracket_is_what_noise_leaves() -> None:
    truth = Planted(speedup=lambda tokens, link: 1.05 if tokens > 2000 else 1.0 if tokens > 600 else 0.95)
    cases = synthetic.cases((256, 4096))
    trials = rounds(cases, replace(MEASURE, same_within=0.0, link_sensitivity=False), truth)
    (answer,) = break_evens(compare_off_on(trials, replace(MEASURE, same_within=0.0)))
    assert answer.bracket is not None
    assert answer.bracket[0] < 600
    assert 2000 < answer.bracket[1] < 2000 * NARROW
    assert len({trial.case_id for trial in trials}) <= 2 + MEASURE.refine_cases


def test_verdicts_that_are_not_monotone_are_not_bisected_and_that_is_said() -> None:
    truth = Planted(speedup=lambda tokens, link: 0.9 if tokens == 1024 else 1.1)
    cases = synthetic.cases(TOKENS)
    trials = run(cases, truth)
    assert refinements(trials, cases, MEASURE) == []
    assert sensitivities(trials, cases, MEASURE) == []
    assert without_bracket(trials, cases, MEASURE) == [
        "no bracket for streams x2 torch, bf16, link h800-nvlink-ep8: not monotone"
    ]


@pytest.mark.parametrize(("limit_s", "refined"), [(0.5, 1), (1.5, 2), (600.0, 3)])
def test_no_round_is_begun_after_the_time_limit(limit_s: float, refined: int) -> None:
    cases, said, seconds = synthetic.cases(TOKENS), [], iter(range(99))
    folder = Folder(run(cases))
    measure = replace(MEASURE, refine_cases=3, refine_limit_s=limit_s, link_sensitivity=False)
    measure_what_verdicts_ask(folder, measure, cases, folder.carry_out, said.append, clock=lambda: next(seconds))
    assert sum(" tokens between " in line for line in said) == refined - (limit_s < 600)
    assert any(line.startswith("refining: no further") for line in said) is (limit_s < 600)


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_cases_are_added_than_allowed(most: int) -> None:
    cases = synthetic.cases(TOKENS)
    trials = rounds(cases, replace(MEASURE, refine_cases=most, link_sensitivity=False))
    assert len({trial.case_id for trial in trials}) == len(cases) + most


def test_nothing_is_added_unless_asked_or_without_a_bracket() -> None:
    cases = synthetic.cases(TOKENS)
    assert refinements(run(cases), cases, MeasureSettings()) == []
    assert sensitivities(run(cases), cases, MeasureSettings()) == []
    small = synthetic.cases((64, 128))
    assert refinements(run(small), small, MEASURE) == []
    assert sensitivities(run(small), small, MEASURE) == []


def test_one_case_serves_all_series_that_need_it() -> None:
    cases = synthetic.cases(TOKENS, splits=(2, 3))
    first = refinements(run(cases), cases, MEASURE)
    assert {len(refinement.case.variants) for refinement in first} == {len(cases[0].variants)}
    assert len({refinement.case.case_id for refinement in first}) == len(first)


def test_an_undecided_row_inside_the_bracket_does_not_stop_the_bisection() -> None:
    (answer,) = break_evens(compare_off_on(run(synthetic.cases(TOKENS)), MEASURE))
    middle = next_tokens(answer)
    assert middle is not None
    undecided = type(answer.verdicts[0][1]).UNDECIDED
    wider = replace(answer, verdicts=tuple(sorted((*answer.verdicts, (middle, undecided)))))
    assert next_tokens(wider) not in (None, middle)


def test_the_bracket_is_measured_over_a_slower_and_a_faster_link_and_told_apart() -> None:
    cases = synthetic.cases(TOKENS)
    trials = rounds(cases, replace(MEASURE, refine="off"))
    added = list(Added(cases, MEASURE).cases(trials))
    links = {case.link.name: case.link for case in added}
    base = cases[0].link
    assert links == {f"{base.name}-x{factor:g}": scaled(base, factor) for factor in FACTORS}
    assert {case.workload.tokens for case in added} == set(bracket_of(run(cases)))
    assert all(base_of(case.link, [base]) == base for case in added)
    assert base_of(LOCAL, [base]) is None


def test_links_without_a_model_have_no_bandwidth_to_change() -> None:
    cases = [replace(case, link=HOST_LINK) for case in synthetic.cases(TOKENS)]
    like = [replace(trial, link=HOST_LINK) for trial in run(synthetic.cases(TOKENS))]
    assert sensitivities(like, cases, MEASURE) == []


@dataclass(frozen=True)
class Stored(synthetic.StubRun):
    """A run whose sweep file lists the base cases alone."""

    measure: MeasureSettings = MEASURE

    def config(self) -> synthetic.SweepConfig:
        listed = [t for t in self.stored if "-x" not in t.link.name and t.workload.tokens in TOKENS]
        return replace(synthetic.config_of(listed), measure=self.measure)


def flat_below_x2(tokens: int, link: Link) -> float:
    """A bracket of 256 and 1024 that a bandwidth x2 moves below 256."""
    return 1.1 if tokens > 256 or link.name.endswith("x2") else 0.9


def steady(tokens: int, link: Link) -> float:
    return 1.1 if tokens > 256 else 0.9


def lost_in_noise_at_x2(tokens: int, link: Link) -> float:
    return 1.0 if tokens == 256 and link.name.endswith("x2") else steady(tokens, link)


@pytest.mark.parametrize(
    ("speedup", "same_within", "said", "depends"),
    [
        (
            flat_below_x2,
            0.01,
            "Depends on the link: at bandwidth x0.5, x1 and x2, 256 tokens are SLOWER, SLOWER and FASTER, "
            "1024 tokens are FASTER, FASTER and FASTER.",
            True,
        ),
        (
            steady,
            0.01,
            "Does not depend on the link's bandwidth within these bounds: at bandwidth x0.5, x1 and x2, 256 tokens are "
            "SLOWER, SLOWER and SLOWER, 1024 tokens are FASTER, FASTER and FASTER.",
            False,
        ),
        (
            lost_in_noise_at_x2,
            0.0,
            "Unknown whether it depends on the link: at bandwidth x0.5, x1 and x2, 256 tokens are SLOWER, SLOWER and "
            "UNDECIDED, 1024 tokens are FASTER, FASTER and FASTER.",
            None,
        ),
    ],
)
def test_the_report_says_whether_the_verdict_depends_on_the_link(
    speedup: Callable[[int, Link], float], same_within: float, said: str, depends: bool | None
) -> None:
    measure = replace(MEASURE, refine="off", same_within=same_within)
    trials = rounds(synthetic.cases(TOKENS), measure, Planted(speedup=speedup))
    model = report.build(Stored(trials, measure=measure))
    (section,) = model.sections
    assert [row.tokens for row in section.rows] == list(TOKENS), "what-ifs stand in no table"
    assert break_even.link_sensitivity(section) == [said]
    assert said in markdown.page(model)
    assert said in tables.decision(section).notes
    told = json.loads(json.dumps(document.document(model)))["break_evens"][0]
    assert told["depends_on_link"] is depends
    assert {one["bandwidth_factor"] for one in told["what_ifs"]} == set(FACTORS)


def test_a_what_if_that_was_not_measured_leaves_it_unknown() -> None:
    measure = replace(MEASURE, refine="off")
    trials = rounds(synthetic.cases(TOKENS), measure, Planted(speedup=steady))
    left = [trial for trial in trials if not (trial.link.name.endswith("x2") and trial.workload.tokens == 256)]
    (section,) = report.build(Stored(left, measure=measure)).sections
    assert section.depends_on_link is None
    (said,) = break_even.link_sensitivity(section)
    assert "256 tokens are SLOWER, SLOWER and not measured" in said


def test_what_ifs_alone_are_the_table() -> None:
    trials = rounds(synthetic.cases(TOKENS), replace(MEASURE, refine="off"))
    model = report.build(Stored(trials), report.only(trials, "link=h800-nvlink-ep8-x2"))
    assert [section.series.link.name for section in model.sections] == ["h800-nvlink-ep8-x2"]


def test_what_ifs_change_no_other_row() -> None:
    trials = run(synthetic.cases(TOKENS))
    more = rounds(synthetic.cases(TOKENS), replace(MEASURE, refine="off"))
    before, after = report.build(Stored(trials)), report.build(Stored(more))
    assert more[: len(trials)] == trials
    assert [section.rows for section in after.sections] == [section.rows for section in before.sections]
    assert (after.noise, after.best_splits, after.headline) == (
        before.noise,
        before.best_splits,
        replace(before.headline, what_ifs=after.headline.what_ifs),
    )


def test_added_cases_that_lack_passes_are_said_to_be_incomplete() -> None:
    trials = rounds(synthetic.cases(TOKENS), replace(MEASURE, link_sensitivity=False))
    assert report.build(Stored(trials)).coverage.complete
    assert not report.build(Stored(trials[:-1])).coverage.complete


def test_the_scaled_link_says_what_it_is_in_every_label() -> None:
    base = synthetic.cases(TOKENS)[0].link
    assert scaled(base, 0.5).note == "bandwidth x0.5 of h800-nvlink-ep8"
    assert scaled(replace(base, note="fitted"), 2).note == "fitted, bandwidth x2 of h800-nvlink-ep8"


def test_stored_cases_that_nobody_asked_for_are_not_taken_for_added_ones() -> None:
    cases = synthetic.cases(TOKENS)
    trials = rounds(cases, MEASURE)
    assert list(Added(cases, MeasureSettings()).cases(trials)) == []
    other = run([replace(cases[0], workload=replace(cases[0].workload, seed=9))])
    assert list(Added(cases, MEASURE).cases(other)) == []
