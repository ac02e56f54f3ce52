"""Where a sweep's own seconds go: a stopwatch on a fake clock, all Trials of a run together, and what a report says."""

import time
from dataclasses import replace

import pytest
import synthetic

from bench import report
from bench.render import document, html, markdown, tables
from bench.spent import Spent, SpentOn, process_age_s, together


def test_every_second_is_of_one_activity() -> None:
    now_s = iter([10.0, 11.0, 13.0, 16.0, 20.0])
    spent = Spent(lambda: next(now_s))
    for activity in ("oracle", "measure", "oracle"):
        spent.on(activity)
    spent.add("start", 0.5)
    assert spent.so_far() == {"build": 1.0, "oracle": 2.0 + 4.0, "measure": 3.0, "start": 0.5}


def test_what_took_no_time_is_not_told() -> None:
    assert Spent(lambda: 7.0).so_far() == {}


def test_trials_together_in_the_order_of_a_trial() -> None:
    found = together([{"measure": 1.0, "start": 9.0}, {"measure": 3.0}, {"measure": 8.0, "build": 0.5}])
    assert found == (
        SpentOn("start", 1, 9.0, 9.0, 9.0),
        SpentOn("build", 1, 0.5, 0.5, 0.5),
        SpentOn("measure", 3, 3.0, 8.0, 12.0),
    )
    assert together([{}]) == ()


def test_a_process_is_as_old_as_its_clock_says() -> None:
    first = process_age_s()
    if first is None:
        pytest.skip("this system does not say when a process was started")
    time.sleep(0.05)
    second = process_age_s()
    assert second is not None
    assert 0 < first < second < first + 5


def test_a_report_says_it_where_the_run_does() -> None:
    trials = synthetic.Builder(passes=2, pairs=2).trials(synthetic.cases((256,)))
    model = report.build(synthetic.StubRun(trials))
    [table] = tables.spent(model)
    assert table.rows == (
        ("oracle", "2", "0.50", "0.50", "1.0", "50 %"),
        ("measure", "2", "0.50", "0.50", "1.0", "50 %"),
    )
    for page in (markdown.page(model), html.page(model)):
        assert "time went" in page
    assert document.document(model)["spent_s"] == {"oracle": 1.0, "measure": 1.0}
    before = report.build(synthetic.StubRun([replace(trial, spent_s={}) for trial in trials]))
    assert tables.spent(before) == []
    assert "time went" not in markdown.page(before)
