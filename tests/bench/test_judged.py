"""Comparing two runs a few cases at a time, by one process or several: what comes out is what the definition says."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from whole_runs import compare_runs

from bench import against, forked, judged, lines
from bench.deciding.changes import Between
from bench.deciding.join import series_of
from bench.errors import BenchError
from bench.render import against_document, against_terminal
from bench.results import Status, Trial, from_record, to_record
from bench.run_folder import RunFolder

REPORTS = sorted(path.parent for path in (Path(__file__).parents[2] / "reports").glob("*/results.jsonl"))
CONFIG = """\
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256, 1024, 4096], precision: bf16,
       link: {paced: h800-nvlink-ep8}}
variants: [{split_factor: [2, 4]}]
"""
CASES = synthetic.cases((256, 1024, 4096), splits=(2, 4))


def by_definition(run: RunFolder) -> list[Trial]:
    """The last Trial of each case and pass, by the strict reader alone."""
    latest = {}
    for line in run.results_path.read_bytes().splitlines():
        trial = from_record(json.loads(line))
        latest[trial.case_id, trial.pass_index] = trial
    return list(latest.values())


def defined(base: RunFolder, new: RunFolder) -> Between:
    return compare_runs(by_definition(base), by_definition(new), base.config().measure)


@pytest.fixture(params=["one process", "two processes"])
def few_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judged, "CASES_AT_ONCE", 2)
    if request.param == "two processes":
        monkeypatch.setattr(lines, "LARGE_BYTES", 0)
        monkeypatch.setattr(forked, "processes", lambda: 2)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """BASE holds 256 and 1024 tokens, NEW 4096 and 1024 and what failed, was measured again and turned itself off."""
    base = synthetic.Builder(seed=1, passes=5, pairs=3).trials(CASES[:2])
    slow = synthetic.Builder(
        seed=2, passes=5, pairs=3, change=lambda m, p, w: synthetic.rescaled(m, 1.1) if m.role == "T2o" else m
    ).trials([CASES[2], CASES[1]])
    failing = replace(slow[3], measurements=tuple(synthetic.failed(m, Status.OOM) for m in slow[3].measurements))
    new = [*slow[:3], failing, *slow[4:], slow[3], *base[:2]]
    return tuple(
        RunFolder(synthetic.write_run(tmp_path / name, trials, CONFIG)) for name, trials in (("a", base), ("b", new))
    )


def same(base: RunFolder, new: RunFolder) -> against.Against:
    found = against.build(base, new)
    expected = defined(base, new)
    assert found.between == expected
    whole = replace(found, between=expected)
    assert against_document.document(found) == against_document.document(whole)
    assert against_terminal.summary(found) is not None
    for section in found.sections:
        for row in section.rows:
            assert section.base == series_of(row.base.workload, row.base.link, row.base.variant)
            assert section.new == series_of(row.new.workload, row.new.link, row.new.variant)
    assert len({(section.base, section.new) for section in found.sections}) == len(found.sections)
    return found


@pytest.mark.usefixtures("few_at_once")
def test_two_runs_that_overlap_in_some_cases(runs: tuple[RunFolder, RunFolder]) -> None:
    found = same(*runs)
    assert len(found.between.changes) == 4
    assert {place.workload.tokens for place in found.between.only_in_new} == {4096}
    backwards = same(runs[1], runs[0])
    assert {row.place.workload.tokens for row in backwards.between.not_compared} == {4096}


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("report", REPORTS, ids=lambda path: path.name)
def test_committed_runs(report: Path) -> None:
    run = RunFolder(report)
    if any(m.role == "T2o" for trial in run.trials() for m in trial.measurements):
        same(run, run)
    else:
        with pytest.raises(BenchError, match="timed no overlapped variant"):
            against.build(run, run)


def damaged(runs: tuple[RunFolder, RunFolder], change: Callable[[bytes], bytes], *numbers: int) -> None:
    stored = runs[1].results_path
    stored.write_bytes(
        b"".join(
            change(line) if number in numbers else line
            for number, line in enumerate(stored.read_bytes().splitlines(keepends=True), start=1)
        )
    )


@pytest.mark.usefixtures("few_at_once")
def test_of_damaged_lines_the_first_is_named(runs: tuple[RunFolder, RunFolder]) -> None:
    damaged(runs, lambda line: line.replace(b'"pass_index": ', b'"pass_index": -'), 9, 6, 8)
    with pytest.raises(BenchError, match=r"b/results.jsonl:6: not a readable Trial: pass_index"):
        against.build(*runs)


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize(
    "change",
    [
        lambda line: json.dumps(json.loads(line), separators=(",", ":")).encode() + b"\n",
        lambda line: re.sub(rb'("case_id": ")(.)', lambda found: b"%b\\u%04x" % (found[1], ord(found[2])), line),
        lambda line: json.dumps(dict(reversed(json.loads(line).items()))).encode() + b"\n",
    ],
    ids=["without spaces", "an escaped id", "keys in another order"],
)
def test_lines_of_another_form_are_of_their_cases(
    change: Callable[[bytes], bytes], runs: tuple[RunFolder, RunFolder]
) -> None:
    expected = defined(*runs)
    damaged(runs, change, 2, 3, 7)
    assert against.build(*runs).between == expected


def test_lines_are_found_by_case_whatever_their_form(tmp_path: Path) -> None:
    path, record = tmp_path / "results.jsonl", to_record(synthetic.Builder(passes=1, pairs=1).trials(CASES[:1])[0])
    spaced, compact = json.dumps(record), json.dumps(record, separators=(",", ":"))
    name = record["case_id"]
    escaped = compact.replace(f'"{name}"', f'"\\u{ord(name[0]):04x}{name[1:]}"')
    path.write_text(f'{compact}\n{escaped}\nnonsense\n{spaced}\n{{"case_id": 5}}\n{compact}')
    found = lines.by_case(path)
    assert {key: [line.number for line in some] for key, some in found.items()} == {
        name.encode(): [1, 2, 4],
        b"": [3],
        b"5": [5],
    }
    (first, second, _), text = found[name.encode()], path.read_bytes()
    assert (first.start, first.length) == (0, len(compact))
    assert text[second.start : second.start + second.length] == escaped.encode()
