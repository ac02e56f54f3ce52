"""A/A: T1 run twice under two names, judged like any variant, and no part of any other answer."""

from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from one_pass import SETTINGS, Pass
from small_sweep import small_case

from bench import report
from bench.deciding.compare import Reason, Verdict
from bench.deciding.off_against_off import off_against_off
from bench.render import alone as alone_tables
from bench.render import document, html, markdown, noise, sentences, words
from bench.results import Measurement, Status, Trial, UnreadableTrialError, from_record, to_record
from bench.running.failures import failures
from bench.running.messages import Step
from bench.settings import MeasureSettings

AA = replace(SETTINGS, aa=True)


def with_again(trials: list[Trial], faster: float = 1.0) -> list[Trial]:
    """Each T1 once more, its samples a little later: other noise, the same truth but for ``faster``."""
    drawn = synthetic.Builder(passes=len(trials), seed=2, pairs=12)
    cases = [synthetic.Case(t.workload, t.link, tuple(m.variant for m in t.measurements)) for t in trials]
    others = [drawn.trials([case])[trial.pass_index] for case, trial in zip(cases, trials, strict=True)]
    return [
        replace(trial, off_again=(replace(synthetic.rescaled(other.measurements[0], 1 / faster), check=None),))
        for trial, other in zip(trials, others, strict=True)
    ]


TRIALS = synthetic.Builder(passes=5).trials(synthetic.cases([512, 2048]))


def test_equal_runs_are_the_same_and_unequal_ones_are_not() -> None:
    found = off_against_off(with_again(TRIALS), MeasureSettings())
    assert [(one.workload.tokens, one.verdict) for one in found] == [(512, Verdict.SAME), (2048, Verdict.SAME)]
    assert all(one.variant.role == "T1" for one in found)
    faster = off_against_off(with_again(TRIALS, faster=1.05), MeasureSettings())
    assert [one.verdict for one in faster] == [Verdict.FASTER] * 2
    assert [one.estimate.speedup for one in faster if one.estimate] == pytest.approx([1.05] * 2, rel=2e-3)


def test_without_it_there_is_nothing_to_tell() -> None:
    assert off_against_off(TRIALS, MeasureSettings()) == []
    model = report.build(synthetic.StubRun(TRIALS))
    assert noise.off_against_off(model) == []
    assert "A/A" not in markdown.page(model)


def test_what_forbids_a_verdict_forbids_this_one() -> None:
    trials = with_again(TRIALS)
    broken = [replace(t, off_again=(replace(t.off_again[0], status=Status.INCORRECT),)) for t in trials[:2]]
    for found in off_against_off([*broken, *trials[2:]], MeasureSettings()):
        assert (found.verdict, found.reasons) == (Verdict.UNDECIDED, (Reason.PASS_FAILED,))
        assert found.estimate is not None
        assert found.estimate.passes == 4
    [one] = [t for t in trials if t.pass_index == 0 and t.workload.tokens == 512]
    assert [f.reasons for f in off_against_off([one], MeasureSettings())] == [(Reason.ONE_PASS,)]


def test_the_report_says_it_in_one_line_and_nothing_else_in_it_changes() -> None:
    plain, with_aa = (report.build(synthetic.StubRun(trials)) for trials in (TRIALS, with_again(TRIALS)))
    [line] = noise.off_against_off(with_aa)
    assert line.startswith("A/A, off against off: SAME at 512 and 2048; ")
    assert markdown.page(with_aa).replace(f"{line}\n\n", "") == markdown.page(plain)
    told = document.document(with_aa)
    assert [one["verdict"] for one in told["off_against_off"]] == ["SAME", "SAME"]
    assert [one["again_s"] for one in told["off_against_off"]] == [one.again_s for one in with_aa.off_against_off]
    assert told["comparisons"] == document.document(plain)["comparisons"]
    assert told["break_evens"] == document.document(plain)["break_evens"]


def test_where_nothing_else_ran_the_headline_counts_it() -> None:
    alone = [replace(trial, measurements=trial.measurements[:1]) for trial in with_again(TRIALS)]
    model = report.build(synthetic.StubRun(alone))
    assert sentences.headline(model).endswith("to compare with. Off against off: 2 of 2 SAME.")
    (told,) = alone_tables.tables(model)
    assert told.headers == ("tokens", "ms", "again ms", "A/A", "verdict")
    for (tokens, _, _, ratio, verdict), found in zip(told.rows, model.off_against_off, strict=True):
        known = found.estimate
        assert known is not None
        assert (tokens, verdict) == (str(found.workload.tokens), "SAME")
        assert ratio == words.factor(known.speedup, known.low, known.high)
    assert [cells[2] for cells in told.rows] == [f"{found.again_s * 1e3:.3f}" for found in model.off_against_off]
    page = markdown.page(model)
    assert page.count(told.title) == 1
    assert "## Answers" not in page
    assert "A/A, off against off" not in page, "the table says it"


def test_its_noise_is_what_such_a_run_is_for() -> None:
    alone = [replace(trial, measurements=trial.measurements[:1]) for trial in with_again(TRIALS)]
    model = report.build(synthetic.StubRun(alone))
    largest = [one.estimate.min_detectable for one in model.off_against_off if one.estimate]
    assert model.noise.min_detectable_worst == max(largest)
    (said,) = noise.floor(model)
    assert said.startswith("Noise floor (off against off, medians): paired ratios ")
    assert "n/a" not in said
    without = report.build(synthetic.StubRun([replace(trial, off_again=()) for trial in alone]))
    assert noise.floor(without) == []
    assert "Noise floor" not in markdown.page(without) + html.page(without)


def test_doubts_about_either_run_stand_below_its_table() -> None:
    alone = [replace(trial, measurements=trial.measurements[:1]) for trial in with_again(TRIALS)]
    slowed = ("slowed down by SwPowerCap: next to round 1",)
    first, second = alone[0], alone[1]
    assert (first.workload.tokens, second.workload.tokens) == (512, 2048)
    alone[0] = replace(first, measurements=(replace(first.measurements[0], flags=slowed),))
    alone[1] = replace(second, off_again=(replace(second.off_again[0], flags=("still drifts: 3 %",)),))
    (told,) = alone_tables.tables(report.build(synthetic.StubRun(alone)))
    assert "Doubt at 512: slowed down by SwPowerCap." in told.notes
    assert "Doubt at 2048: still drifts." in told.notes
    false = with_again(TRIALS, faster=1.05)
    (told,) = alone_tables.tables(
        report.build(synthetic.StubRun([replace(trial, measurements=trial.measurements[:1]) for trial in false]))
    )
    assert any("trust no verdict of that size" in note for note in told.notes)


def test_a_false_verdict_is_an_alarm() -> None:
    [line] = noise.off_against_off(report.build(synthetic.StubRun(with_again(TRIALS, faster=1.05))))
    assert "FASTER at 512 and 2048" in line
    assert line.endswith("where nothing was changed: trust no verdict of that size in this run.")


def test_a_filtered_report_keeps_what_belongs_to_its_rows() -> None:
    kept = report.only(with_again(TRIALS), "tokens=512")
    assert [len(trial.off_again) for trial in kept] == [1] * 5


def test_a_pass_times_every_t1_twice_in_turn_with_the_rest(tmp_path: Path) -> None:
    one_pass = Pass(tmp_path)
    case = small_case()
    trial = one_pass.run(case, settings=AA)
    [again] = trial.off_again
    assert (again.role, again.status, len(again.samples_s)) == ("T1", Status.OK, 4)
    assert again.variant == case.variants[0]
    places = sorted(place for m in (*trial.measurements, again) for place in m.places)
    assert places == list(range(16)), "four names by turns"
    assert [m.variant for m in trial.measurements] == list(case.variants), "it is no variant of the case"
    assert from_record(to_record(trial)) == trial
    warmed = [step.variant_id for step in one_pass.steps if isinstance(step, Step) and step.phase == "warm-up"]
    assert warmed == [m.variant_id for m in (*trial.measurements, again)], "what dies in it, dies in T1"


def test_a_pass_that_was_not_asked_to_times_t1_once(tmp_path: Path) -> None:
    assert Pass(tmp_path).run(small_case()).off_again == ()


def test_a_second_run_that_fails_is_told_and_repeated() -> None:
    [trial] = [t for t in with_again(TRIALS) if t.pass_index == 0 and t.workload.tokens == 512]
    assert not trial.failed
    broken = replace(trial, off_again=(replace(trial.off_again[0], status=Status.INCORRECT, reason="made up"),))
    assert broken.failed
    [told] = failures([broken])
    assert (told.variant, told.status, told.reason) == ("off torch, again", Status.INCORRECT, "made up")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, other: replace(m, samples_s=(0.0, *m.samples_s[1:])), "off_again.0.samples_s.0"),
        (lambda m, other: replace(m, variant=other), "off_again.0.variant: a T2o, expected a T1"),
    ],
)
def test_a_damaged_second_run_is_refused(change, message: str) -> None:
    trial = with_again(TRIALS[:1])[0]
    again: Measurement = change(trial.off_again[0], trial.measurements[-1].variant)
    with pytest.raises(UnreadableTrialError, match=message):
        from_record(to_record(replace(trial, off_again=(again,))))
