"""How far ranks lie apart, as a report says it: made-up records of several ranks."""

from dataclasses import replace

from synthetic import H100, Builder, StubRun, cases

from bench import report
from bench.render import document, sentences
from bench.render.tables import decision
from bench.results import Measurement
from moe_impl.options import Workload

SKEWS = {("T1", 256): 0.01, ("T1", 1024): 0.03, ("T2o", 256): 0.05, ("T2o", 1024): 0.05}


def two_ranks(m: Measurement, pass_index: int, work: Workload) -> Measurement:
    """One pass far off, which the median over passes leaves out."""
    skew = 0.9 if pass_index == 0 else SKEWS.get((m.role, work.tokens))
    return replace(m, rank_skew=skew)


def test_the_report_says_how_far_ranks_lie_apart_off_and_on() -> None:
    trials = Builder(pairs=2, machine=replace(H100, ranks=2), change=two_ranks).trials(cases([256, 1024]))
    model = report.build(StubRun(trials))
    (section,) = model.sections
    said = "Ranks: the fastest is 1 % to 3 % (off) and 5 % (on) ahead of the slowest, whose times these are."
    assert said in decision(section).notes
    rows = document.document(model)["comparisons"]
    assert [(row["off_rank_skew"], row["on_rank_skew"]) for row in rows] == [(0.01, 0.05), (0.03, 0.05)]


def test_one_rank_has_none_to_lie_apart_from() -> None:
    (section,) = report.build(StubRun(Builder(pairs=2).trials(cases([256])))).sections
    assert sentences.rank_skew(section) == []
