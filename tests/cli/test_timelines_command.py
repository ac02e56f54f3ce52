"""Profiles as a user meets them: profile a run, see it in its report, export a trace; and two runs in one report."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import kept_profile
import pytest
import synthetic

from bench.profiling import drive
from bench.profiling.request import Request
from bench.running import probe

CONFIG = """\
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 4, tokens: 8192, precision: nvfp4-w4a16, link: {paced: h800-nvlink-ep8}}
variants: [{engine: streams, split_factor: 2}]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an H100, on which a profile leaves the traces of tests/data."""

    def profile(request: Request) -> list[Path]:
        assert [variant.role for variant in request.case.variants] == ["T1", "T2s", "T2o"]
        return kept_profile.raw_traces(Path(request.folder))

    monkeypatch.setattr(drive, "profile", profile)
    monkeypatch.setattr(probe, "probe", lambda device: SimpleNamespace(machine=synthetic.H100))


def a_run(folder: Path, precision: str = "nvfp4-w4a16") -> Path:
    trials = synthetic.Builder(passes=2, pairs=2).trials(synthetic.cases((8192,), (precision,), layers=4))  # type: ignore[arg-type]
    return synthetic.write_run(folder, trials, CONFIG.replace("nvfp4-w4a16", precision))


@pytest.mark.usefixtures("gpu")
def test_profiling_a_run_puts_its_timeline_into_its_report(command: Run, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    code, out, err = command("profile", run)
    assert (code, err) == (0, "")
    folder = run / "timelines" / f"{kept_profile.case().case_id}-torch"
    assert "T2o streams x2 triton\nOverlapping: 68.2 % of communication runs beside compute." in out
    assert f"Repeat: bench profile {run} --case {kept_profile.case().case_id} --tool torch\n" in out
    assert {path.name for path in folder.iterdir()} == {
        "analysis.json",
        "timeline-1.svg",
        "variant-0.json.gz",
        "variant-1.json.gz",
        "variant-2.json.gz",
    }
    code, out, err = command("report", run)
    assert (code, err) == (0, "")
    assert f"{folder}/timeline-1.svg" in out
    assert "Why no more overlap" in (run / "report.html").read_text()
    assert f"](timelines/{folder.name}/timeline-1.svg)" in (run / "report.md").read_text()
    code, _, err = command("profile", run)
    assert (code, err) == (2, f"error: --out: {folder} is not empty\n"), "a profile is never replaced"


@pytest.mark.usefixtures("gpu")
def test_a_folder_that_is_asked_for_is_used_and_repeated(command: Run, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    code, out, _ = command("profile", run, "--out", tmp_path / "mine")
    assert code == 0
    assert (tmp_path / "mine" / "analysis.json").is_file()
    assert not (run / "timelines").exists()
    assert f"--tool torch --out {tmp_path / 'mine'}\n" in out


def test_analyze_says_which_file_it_wants_instead(command: Run, tmp_path: Path) -> None:
    folder = kept_profile.TRACES[2].parent
    (tmp_path / "timelines" / "one").mkdir(parents=True)
    trace = tmp_path / "timelines" / "one" / "variant-0.json.gz"
    analysis = trace.with_name("analysis.json")
    for path in (trace, analysis):
        path.write_bytes(kept_profile.TRACES[2].read_bytes())
    for given, what in (
        (tmp_path, "is a directory, expected a profile"),
        (folder / "none", "No such file or directory"),
    ):
        code, _, err = command("analyze", given)
        wanted = f", such as {trace}" if given is tmp_path else ""
        assert (code, err) == (2, f"error: {given}: {what}{wanted}\n")
    code, _, err = command("analyze", analysis)
    assert (code, err) == (
        2,
        f"error: {analysis}: metrics of a profile, expected the profile itself, such as {trace}\n",
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    assert command("analyze", empty)[2] == f"error: {empty}: is a directory, expected a profile\n"


def test_analyze_exports_a_trace_and_never_over_its_input(command: Run, tmp_path: Path) -> None:
    source = kept_profile.TRACES[2]
    code, out, err = command("analyze", source, "--perfetto", tmp_path / "out.json")
    assert code == 0
    assert (
        err == f"wrote {tmp_path / 'out.json'}: 1 run, a track a stream and micro-batch; open it in ui.perfetto.dev\n"
    )
    assert "Overlapping: 68.2 %" in out
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" and "kernel" in event["args"] for event in events) == 161
    before = source.read_bytes()
    code, _, err = command("analyze", source, "--perfetto", source)
    assert (code, err) == (2, f"error: --perfetto: {source} is the profile itself\n")
    assert source.read_bytes() == before


def test_two_runs_in_one_report_leave_both_alone(command: Run, tmp_path: Path) -> None:
    runs = [a_run(tmp_path / "fp4"), a_run(tmp_path / "half", "bf16")]
    before = [sorted(path.name for path in run.iterdir()) for run in runs]
    code, out, err = command("report", *runs, "--out", tmp_path / "both")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == str(tmp_path / "both" / "report.html")
    assert [sorted(path.name for path in run.iterdir()) for run in runs] == before
    text = (tmp_path / "both" / "report.md").read_text()
    assert "streams x2 triton, nvfp4-w4a16 in A, streams x2 torch, bf16 in B" in text


def test_where_a_report_goes_is_asked_for_two_runs_and_fixed_for_one(command: Run, tmp_path: Path) -> None:
    runs = [a_run(tmp_path / "fp4"), a_run(tmp_path / "half", "bf16")]
    for arguments, said in (
        (runs, "--out is missing: the report of two runs goes to a folder of its own"),
        ([*runs, "--out", runs[1]], f"--out: {runs[1]} is one of the two runs, whose own report would be lost"),
        ([runs[0], "--out", tmp_path / "x"], "--out: is for the report of two runs, found one"),
    ):
        code, _, err = command("report", *arguments)
        assert code == 2
        assert err.startswith(f"error: {said}")
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "x").exists()
