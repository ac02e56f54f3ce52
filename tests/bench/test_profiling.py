"""Driving a profiler: planted tools and processes; no report with the environment in it survives."""

import json
import os
import shutil
import sqlite3
import stat
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from small_sweep import small_case

from bench.errors import BenchError
from bench.profiling import choose, drive
from bench.profiling.pared import pare
from bench.profiling.request import Request, Tool, dump, load, trace_name
from bench.results import ExpertsChoice
from bench.timeline.analysis import measure, runs_of
from bench.timeline.attribute import attribute
from bench.timeline.read import read

SAMPLE = Path(__file__).parents[1] / "data" / "nsight_sample.sqlite"


def request(folder: Path, tool: Tool = "torch") -> Request:
    return Request(small_case(), tool, str(folder))


def running(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def fake_nsys(folder: Path, leaving: str, can_discard: bool = True) -> None:
    """A tool on PATH: ``profile`` runs what follows its options and leaves a report, ``export`` leaves the sample."""
    script = folder / "nsys"
    script.write_text(
        f"#!{sys.executable}\n"
        "import os, shutil, subprocess, sys\n"
        "option = lambda name: next(a.split('=', 1)[1] for a in sys.argv if a.startswith(name))\n"
        "if '--help' in sys.argv:\n"
        f"    sys.exit(print({drive.DISCARD if can_discard else 'no such option'!r}))\n"
        "if sys.argv[1] == 'profile':\n"
        "    command = [a for a in sys.argv[2:] if not a.startswith('--')]\n"
        "    code = subprocess.run(command).returncode\n"
        f"    open(option('--output') + {leaving!r}, 'w').write(' '.join(os.environ.values()))\n"
        "    sys.exit(code)\n"
        f"shutil.copy({str(SAMPLE)!r}, option('--output'))\n"
        "import sqlite3\n"
        "db = sqlite3.connect(option('--output'))\n"
        "db.execute('CREATE TABLE NVTX_PLANTED (name TEXT, value TEXT)')\n"
        "db.execute('INSERT INTO NVTX_PLANTED VALUES (?, ?)', ('x', open(sys.argv[-1]).read()))\n"
        "db.commit()\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tools").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "tools"


def test_a_request_survives_the_way_down() -> None:
    asked = Request(small_case(), "nsys", "/tmp/x", iterations=3)
    assert load(dump(asked)) == asked


def test_torch_leaves_one_trace_a_variant(tmp_path: Path) -> None:
    asked = request(tmp_path)
    names = [trace_name(index) for index in range(len(asked.case.variants))]
    found = drive.profile(asked, running("import sys, json; json.loads(sys.stdin.read())"))
    assert [path.name for path in found] == names


def test_a_process_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.stdin.read(); print('traceback'); sys.exit('CUDA error: out of luck')"
    with pytest.raises(BenchError, match=r"the profiled process exited with code 1: CUDA error: out of luck"):
        drive.profile(request(tmp_path), running(code))


def test_a_process_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "LIMIT_S", 1.0)
    code = "import subprocess, sys; print('began', file=sys.stderr, flush=True); subprocess.run(['sleep', '60'])"
    started_s = time.monotonic()
    with pytest.raises(BenchError, match=r"took over 1 s: .*; it said: began$"):
        drive.profile(request(tmp_path), running(code))
    assert time.monotonic() - started_s < 30, "its child holds the pipe and lives on"


def test_nsys_gets_its_options_and_its_export_is_returned(tmp_path: Path, tools: Path) -> None:
    fake_nsys(tools, ".nsys-rep")
    (tmp_path / "out").mkdir()
    (export,) = drive.profile(request(tmp_path / "out", "nsys"), running("import sys; sys.stdin.read()"))
    assert not drive.holds(export, "no such text")
    assert (tmp_path / "out" / "nsys.nsys-rep").exists(), "the raw report is kept"


def test_of_an_export_stays_what_is_read_and_nothing_of_the_machine(tmp_path: Path) -> None:
    export = tmp_path / "export.sqlite"
    shutil.copy(SAMPLE, export)
    with closing(sqlite3.connect(export)) as db:
        number = db.execute("SELECT max(id) + 1 FROM StringIds").fetchone()[0]
        db.execute("INSERT INTO StringIds VALUES (?, ?)", (number, "HOME=/root\0MY_TOKEN=s3cret"))
        db.execute("INSERT INTO META_DATA_CAPTURE VALUES ('ENV', 'MY_TOKEN=s3cret')")
        db.commit()
    before = measured(export)
    assert b"s3cret" in export.read_bytes()
    pare(export)
    assert b"s3cret" not in export.read_bytes(), "nor in a page that is no longer used"
    assert measured(export) == before


def measured(export: Path) -> list[object]:
    return [measure(name, found) for name, found in runs_of(attribute(read(export)))]


def test_a_report_that_may_hold_other_processes_environments_is_not_kept(tmp_path: Path, tools: Path) -> None:
    fake_nsys(tools, ".nsys-rep", can_discard=False)
    (tmp_path / "out").mkdir()
    (export,) = drive.profile(request(tmp_path / "out", "nsys"), running("import sys; sys.stdin.read()"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [export.name]


def test_a_profiled_process_gets_what_it_needs_and_no_secret(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nsys(tools, ".nsys-rep")
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    (tmp_path / "out").mkdir()
    (export,) = drive.profile(request(tmp_path / "out", "nsys"), running("import sys; sys.stdin.read()"))
    assert not drive.holds(export, "s3cret")
    assert drive.holds(export, "1,0")


def test_an_export_that_holds_the_environment_is_deleted(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nsys(tools, ".nsys-rep")
    monkeypatch.setattr(drive, "allowed", dict)
    (tmp_path / "out").mkdir()
    with pytest.raises(BenchError, match="holds the environment of the profiled process"):
        drive.profile(request(tmp_path / "out", "nsys"), running("import sys; sys.stdin.read()"))
    assert not (tmp_path / "out" / "nsys.sqlite").exists()


def test_a_qdstrm_without_its_importer_is_named(tmp_path: Path, tools: Path) -> None:
    fake_nsys(tools, ".qdstrm")
    (tmp_path / "out").mkdir()
    with pytest.raises(BenchError, match="there is no QdstrmImporter beside it"):
        drive.profile(request(tmp_path / "out", "nsys"), running("import sys; sys.stdin.read()"))


def test_no_nsys_says_who_knows_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive.tools, "find_tool", lambda name, inside: None)
    with pytest.raises(BenchError, match="bench doctor"):
        drive.profile(request(tmp_path, "nsys"))


def test_every_text_of_every_table_is_searched(tmp_path: Path) -> None:
    shutil.copy(SAMPLE, tmp_path / "x.sqlite")
    assert not drive.holds(tmp_path / "x.sqlite", "s3cret")
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as db:
        db.execute('INSERT INTO StringIds VALUES (99999, "TOKEN=s3cret")')
        db.commit()
    assert drive.holds(tmp_path / "x.sqlite", "s3cret")


def test_a_case_is_named_by_the_beginning_of_its_id() -> None:
    cases = synthetic.cases((16, 64))
    assert choose.one(cases[:1], None) is cases[0]
    assert choose.one(cases, cases[1].case_id[:6]) is cases[1]
    with pytest.raises(BenchError, match=r"2 cases match, name one: \w+ \(tokens=16\), \w+ \(tokens=64\)"):
        choose.one(cases, None)
    with pytest.raises(BenchError, match=r"no case begins with zz, there are \w+ \(tokens=16\)"):
        choose.one(cases, "zz")


def test_a_case_that_cannot_run_here_says_why() -> None:
    case = synthetic.cases((16,), ("nvfp4-w4a16",))[0]
    with pytest.raises(BenchError, match="cannot run here: experts triton needs a CUDA GPU"):
        choose.runnable(case, synthetic.CPU)
    assert choose.runnable(case, synthetic.H100) == case


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    assert drive.folder_for(tmp_path / "new").is_dir()
    (tmp_path / "new" / "file").touch()
    with pytest.raises(BenchError, match="is not empty"):
        drive.folder_for(tmp_path / "new")


def test_a_sweep_file_or_a_run_folder(tmp_path: Path) -> None:
    assert choose.config_of(tmp_path) == tmp_path / "config.resolved.yaml"
    assert choose.config_of(tmp_path / "x.yaml") == tmp_path / "x.yaml"


def test_auto_is_profiled_as_its_run_chose(tmp_path: Path) -> None:
    """Else its timeline may be of other kernels than its times."""
    auto, named = small_case(experts=("auto",)), small_case(tokens=32)
    (trial,) = synthetic.Builder(passes=1, pairs=2, machine=synthetic.CPU).trials([auto])
    run = synthetic.write_run(tmp_path / "run", [replace(trial, experts_choice=ExpertsChoice("humming"))], "")
    assert choose.experts_choice(run, auto) == ExpertsChoice("humming")
    for path, case in ((run, named), (run, small_case(tokens=64, experts=("auto",))), (tmp_path / "x.yaml", auto)):
        assert choose.experts_choice(path, case) is None
    asked = replace(request(tmp_path), experts_choice=ExpertsChoice("humming", {"humming": 0.1}))
    assert load(dump(asked)) == asked


def test_the_request_is_json_that_names_its_case() -> None:
    assert json.loads(dump(request(Path("/tmp"))))["case"]["workload"]["tokens"] == small_case().workload.tokens
