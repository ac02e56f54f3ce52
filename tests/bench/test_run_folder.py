"""A run folder keeps what it was given: locks, torn lines, full disks, and what a resumed sweep still has to do."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweep import small_case
from synthetic import CPU, Builder, failed

from bench.errors import BenchError, Exit
from bench.results import Status, Trial
from bench.run_folder import open_run
from bench.running import resume, run_writer
from bench.settings import MeasureSettings
from moe_impl.options import Machine

CONFIG = Path("somewhere/my-sweep.yaml")


def made_up(tokens: int = 16, pass_index: int = 0, machine: Machine = CPU, seed: int = 1) -> Trial:
    builder = Builder(machine=machine, pairs=2, passes=pass_index + 1, seed=seed)
    return builder.trials([small_case(tokens)])[-1]


def written(folder: Path, *trials: Trial) -> Path:
    with run_writer.create(folder, CONFIG) as run:
        run.write_config("schema: 1\n")
        for trial in trials:
            run.append(trial)
    return folder


def test_what_is_appended_is_read_back_equal(tmp_path: Path) -> None:
    trials = [made_up(16), made_up(32), made_up(16, pass_index=1)]
    assert open_run(written(tmp_path / "run", *trials)).trials() == trials


def test_an_error_that_is_not_a_number_is_read_back(tmp_path: Path) -> None:
    trial = made_up()
    check = replace(trial.measurements[0].check, relative_error=float("nan"))
    wrong = replace(trial.measurements[0], status=Status.INCORRECT, check=check)
    path = written(tmp_path / "run", replace(trial, measurements=(wrong, *trial.measurements[1:])))
    stored = open_run(path).trials()[0].measurements[0].check
    assert stored is not None
    assert stored.relative_error != stored.relative_error


def test_the_last_line_of_a_case_and_pass_counts(tmp_path: Path) -> None:
    first, other, second = made_up(seed=1), made_up(32), made_up(seed=2)
    assert open_run(written(tmp_path / "run", first, other, second)).trials() == [second, other]


def test_without_out_the_folder_is_named_after_config_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with run_writer.create(None, CONFIG) as first, run_writer.create(None, CONFIG) as second:
        assert first.path.parent == Path("runs")
        assert first.path.name.startswith("my-sweep_20")
        assert first.path.name.endswith("Z")
        assert first.path != second.path


def test_a_folder_that_is_not_empty_is_refused_without_resume(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match=r"not empty; add --resume") as refused:
        run_writer.create(tmp_path, CONFIG)
    assert refused.value.code == Exit.BAD_INPUT
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_as_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    for opens in (run_writer.create, run_writer.resume):
        with pytest.raises(BenchError, match=r"out: is a file, not a folder; name another --out$"):
            opens(tmp_path / "out", CONFIG)


@pytest.mark.parametrize("exists", [True, False])
def test_resume_starts_fresh_in_a_missing_or_empty_folder(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with run_writer.resume(folder, CONFIG) as run:
        assert run.folder.trials() == []


def test_resume_refuses_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BenchError, match=r"not a run folder \(no config\.resolved\.yaml\)"):
        run_writer.resume(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("opens", [run_writer.create, run_writer.resume])
def test_a_second_sweep_into_one_folder_is_refused_by_pid(tmp_path: Path, opens) -> None:
    folder = written(tmp_path / "run")
    with (
        run_writer.resume(folder, CONFIG),
        pytest.raises(BenchError, match=rf"in use by another sweep \(pid {os.getpid()}\)"),
    ):
        opens(folder, CONFIG)
    with run_writer.resume(folder, CONFIG):
        pass  # unlocked again


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    code = f"""
import os, signal
from pathlib import Path
from bench.running import run_writer
run = run_writer.resume(Path({str(folder)!r}), Path("c.yaml"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = str(Path(run_writer.__file__).parents[2])
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root})
    assert killed.returncode == -9
    with run_writer.resume(folder, CONFIG):
        pass


def test_a_torn_last_line_is_cut_off_on_resume_and_reported(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", made_up(16), made_up(32))
    results = folder / "results.jsonl"
    whole = results.read_bytes()
    results.write_bytes(whole[:-100])
    assert open_run(folder).trials() == [made_up(16)]
    with run_writer.resume(folder, CONFIG) as run:
        assert run.repaired is not None
        assert "cut off a torn last line" in run.repaired
        run.append(made_up(32))
    assert results.read_bytes() == whole


def test_an_intact_folder_is_not_repaired(tmp_path: Path) -> None:
    with run_writer.resume(written(tmp_path / "run", made_up()), CONFIG) as run:
        assert run.repaired is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"\n", "not a line of JSON"),
        (b"{\n", "not a line of JSON"),
        (b"\xff\xfe\n", "not a line of JSON"),
        (b"[]\n", "not a readable Trial: expected an object, found list"),
        (b'{"schema": 99}\n', "not a readable Trial: schema 99, this program reads 1"),
        (b'{"schema": 1}\n', "not a readable Trial"),
    ],
)
def test_an_unreadable_line_is_named_by_file_and_line(tmp_path: Path, line: bytes, what: str) -> None:
    folder = written(tmp_path / "run", made_up(16), made_up(32))
    results = folder / "results.jsonl"
    first, second = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(first + line + second)
    with pytest.raises(BenchError) as refused:
        open_run(folder).trials()
    assert str(refused.value).startswith(f"{results}:2: {what}")
    advice = "(delete line 2: --resume measures it again)"
    assert str(refused.value).endswith(advice) is what.endswith("JSON"), "of another schema it may be worth keeping"


def test_a_record_whose_case_was_edited_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", made_up())
    record = json.loads((folder / "results.jsonl").read_text())
    record["case"]["workload"]["tokens"] = 17
    (folder / "results.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(BenchError, match="does not match its case"):
        open_run(folder).trials()


@pytest.mark.parametrize("partial", [0, 50])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: int) -> None:
    folder = written(tmp_path / "run", made_up(16))
    before = (folder / "results.jsonl").read_bytes()
    write = os.write

    def full(handle: int, data: bytes) -> int:
        if not partial:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:partial])

    with run_writer.resume(folder, CONFIG) as run:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(BenchError, match=r"results\.jsonl: No space left on device; every Trial stored"):
                run.append(made_up(32))
        assert (folder / "results.jsonl").read_bytes() == before
        run.append(made_up(32))
    assert open_run(folder).trials() == [made_up(16), made_up(32)]


def test_a_flush_that_fails_takes_its_line_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with run_writer.create(tmp_path / "run", CONFIG) as run:
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(BenchError, match="Input/output error"):
            run.append(made_up())
        assert run.folder.results_path.read_bytes() == b""


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*args: object, **more: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", denied)  # root may write anywhere, so a mode would not do
    with pytest.raises(BenchError, match=rf"^{tmp_path / 'run'}: Permission denied$"):
        run_writer.create(tmp_path / "run", CONFIG)


def test_a_config_is_stored_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with run_writer.create(tmp_path / "run", CONFIG) as run:
        run.write_config("first")
        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(BenchError, match="No space left on device"):
            run.write_config("second")
        assert run.folder.config_path.read_text() == "first"
        assert not list(run.path.glob("*.new")) + list(run.path.glob(".*.new"))


@pytest.mark.parametrize("text", ["", "[]", None])
def test_a_broken_environment_is_named(tmp_path: Path, text: str | None) -> None:
    folder = written(tmp_path / "run", made_up())
    if text is not None:
        (folder / "environment.json").write_text(text)
    with pytest.raises(BenchError, match=r"environment\.json: "):
        open_run(folder).environment()


def test_opening_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such run folder"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(BenchError, match=r"holds no results\.jsonl"):
        open_run(tmp_path)


def test_a_file_of_a_run_is_told_from_its_folder(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", made_up())
    with pytest.raises(BenchError, match=rf"results\.jsonl: a file, expected the run folder: {folder}$"):
        open_run(folder / "results.jsonl")
    with pytest.raises(BenchError, match=r"config\.resolved\.yaml: a file, expected a run folder$"):
        open_run(folder / "config.resolved.yaml")


def left(cases, all_cases, trials, passes=2):
    """[(pass, tokens, number of variants)] still to do."""
    todo = resume.remaining(cases, all_cases, trials, passes)
    return [(p, case.workload.tokens, len(case.variants)) for p, cases_left in enumerate(todo) for case in cases_left]


def test_resume_runs_missing_and_failed_trials_and_no_others() -> None:
    cases = [small_case(16), small_case(32)]
    good, bad = made_up(16), made_up(32)
    bad = replace(bad, measurements=(*bad.measurements[:2], failed(bad.measurements[2], Status.OOM)))
    assert left(cases, cases, [good, bad]) == [(0, 32, 3), (1, 16, 3), (1, 32, 3)]


def test_resume_does_not_retry_a_skip() -> None:
    trial = made_up(16)
    trial = replace(trial, measurements=(*trial.measurements[:2], failed(trial.measurements[2], Status.SKIPPED)))
    assert left([small_case(16)], [small_case(16)], [trial], passes=1) == []


def test_resume_runs_a_case_again_whose_set_of_variants_changed() -> None:
    more = small_case(16, experts=("torch", "triton"))
    assert left([more], [more], [made_up(16)], passes=1) == [(0, 16, 6)]
    fewer = replace(small_case(16), variants=small_case(16).variants[:2])
    assert left([fewer], [fewer], [made_up(16)], passes=1) == [(0, 16, 2)]


def test_resume_is_done_when_only_the_order_of_variants_changed() -> None:
    case = small_case(16)
    turned = replace(case, variants=case.variants[::-1])
    assert left([turned], [turned], [made_up(16)], passes=1) == []


def test_a_filtered_resume_never_drops_variants_that_are_stored() -> None:
    whole = small_case(16)
    filtered = replace(whole, variants=whole.variants[:2])
    trial = made_up(16)
    assert left([filtered], [whole], [trial], passes=1) == []
    bad = replace(trial, measurements=(failed(trial.measurements[0]), *trial.measurements[1:]))
    assert left([filtered], [whole], [bad], passes=1) == [(0, 16, 3)]


def test_a_changed_measure_is_refused_by_key() -> None:
    with pytest.raises(BenchError) as refused:
        resume.refuse_changed_measure(MeasureSettings(), MeasureSettings(rounds=7, case_limit_s=3.0))
    first, second = refused.value.problems
    assert first.startswith("measure.rounds: the run was measured with 6, the sweep file now says 7")
    assert second.startswith("measure.case_limit: the run was measured with 120.0, the sweep file now says 3.0")
    resume.refuse_changed_measure(MeasureSettings(), MeasureSettings())
