"""`bench compare RUN` and `bench report RUN` as a user meets them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic

from bench.render import terminal

CONFIG = """\
# Question: from how many tokens on?
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256, 4096], precision: bf16, link: {paced: h800-nvlink-ep8}}
variants: [{engine: streams, split_factor: 2}]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gpu_run(tmp_path: Path) -> Path:
    trials = synthetic.Builder().trials(synthetic.cases((256, 4096)))
    return synthetic.write_run(tmp_path / "gpu", trials, CONFIG)


@pytest.fixture
def cpu_run(tmp_path: Path) -> Path:
    trials = synthetic.Builder(machine=synthetic.CPU, passes=2, pairs=2).trials(synthetic.cases((256, 4096)))
    return synthetic.write_run(tmp_path / "cpu", trials, CONFIG)


def test_compare_prints_the_decision_first(command: Run, gpu_run: Path) -> None:
    code, out, err = command("compare", gpu_run)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("TBO (streams x2 torch, bf16) pays from 4096 tokens on: ")
    assert "Question: from how many tokens on?" in out
    for said in ("SLOWER", "FASTER", "Break-even between 256 and 4096", "Noise floor", "Minimum detectable", "H800"):
        assert said in out


def test_a_run_that_lacks_trials_says_so(command: Run, tmp_path: Path) -> None:
    trials = synthetic.Builder().trials(synthetic.cases((256, 4096)))
    run = synthetic.write_run(tmp_path / "cut", trials[:7], CONFIG)
    code, out, _ = command("compare", run, columns=200)
    assert code == 0
    missing = "Missing: at 256 tokens in pass 5; at 4096 tokens in pass 4 and 5."
    assert out.splitlines()[1] == f"Incomplete: 7 of 10 Trials (filtered, or not run to the end). {missing}"
    assert json.loads(command("compare", run, "--json")[1])["coverage"] == {
        "trials": 7,
        "planned": 10,
        "partial": 0,
        "complete": False,
        "missing": [
            {"case": "", "tokens": [256], "passes": [4]},
            {"case": "", "tokens": [4096], "passes": [3, 4]},
        ],
    }
    assert command("report", run)[0] == 0
    for name in ("report.md", "report.html"):
        assert "Incomplete: 7 of 10 Trials" in (run / name).read_text()


def test_a_filter_is_incomplete_too(command: Run, gpu_run: Path) -> None:
    assert "Incomplete" not in command("compare", gpu_run)[1]
    assert "Incomplete: 5 of 10 Trials (filtered" in command("compare", gpu_run, "--filter", "tokens=256")[1]


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_a_torn_last_line_is_named(command: Run, gpu_run: Path, verb: str) -> None:
    results = gpu_run / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-100])
    code, _, err = command(verb, gpu_run)
    assert code == 0
    assert err.startswith(f"{results}:10: unfinished last line left out")
    assert err.count("\n") == 1


def test_a_stage_time_that_is_no_number_is_refused_by_file_and_line(command: Run, gpu_run: Path) -> None:
    results = gpu_run / "results.jsonl"
    lines = results.read_text().splitlines()
    record = json.loads(lines[3])
    record["measurements"][1]["stages"]["op_s"]["gemm1"][0][0] = float("nan")
    lines[3] = json.dumps(record)
    results.write_text("\n".join(lines) + "\n")
    code, out, err = command("compare", gpu_run)
    assert (code, out) == (2, "")
    assert f"{results}:4: not a readable Trial: measurements.1.stages.op_s.gemm1.0.0: nan" in err


@pytest.mark.parametrize("columns", [24, 40, 60, 79, 100])
def test_a_narrow_terminal_costs_columns_and_no_digit(command: Run, gpu_run: Path, columns: int) -> None:
    _, out, _ = command("compare", gpu_run, columns=columns)
    lines = out.splitlines()
    assert "…" not in out
    assert [line for line in lines if line != line.rstrip()] == []
    assert max(map(len, lines)) <= columns
    wide = [line.split()[:3] for line in command("compare", gpu_run, columns=200)[1].splitlines()]
    shown = [line.split()[:3] for line in lines if line.split()[:1] in (["256"], ["4096"])]
    assert len(shown) >= 2
    assert all(row in wide for row in shown if len(row) == 3 and "." in row[1])
    assert ("Too narrow for:" in " ".join(out.split())) == (columns < 79)


def test_undecided_exits_0(command: Run, cpu_run: Path) -> None:
    code, out, _ = command("compare", cpu_run)
    assert code == 0
    assert out.startswith("Functional check on a CPU, no performance claim.")
    assert out.count("UNDECIDED") >= 2


def test_json_is_one_document_and_nothing_else(command: Run, gpu_run: Path) -> None:
    code, out, err = command("compare", gpu_run, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["verdict"] for row in told["comparisons"]] == ["SLOWER", "FASTER"]
    assert told["run"] == str(gpu_run)


def test_a_filter_narrows_the_table(command: Run, gpu_run: Path) -> None:
    code, out, _ = command("compare", gpu_run, "--filter", "tokens=256", "--json")
    assert code == 0
    assert [row["workload"]["tokens"] for row in json.loads(out)["comparisons"]] == [256]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--filter", "tokens=3"], "tokens=3 matches nothing"),
        (["--filter", "token=256"], "did you mean tokens"),
    ],
)
def test_a_wrong_filter_exits_2_in_one_line(command: Run, gpu_run: Path, arguments: list[str], said: str) -> None:
    code, out, err = command("compare", gpu_run, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_no_run_folder_exits_2_in_one_line(command: Run, tmp_path: Path, verb: str) -> None:
    code, out, err = command(verb, tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_run_without_trials_is_not_comparable(command: Run, tmp_path: Path) -> None:
    code, _, err = command("compare", synthetic.write_run(tmp_path / "empty", [], CONFIG))
    assert code == 4
    assert "no results yet" in err


def test_report_writes_its_files_and_prints_their_paths(command: Run, gpu_run: Path) -> None:
    code, out, _ = command("report", gpu_run)
    assert code == 0
    paths = [Path(line) for line in out.splitlines()]
    assert [path.name for path in paths] == ["report.html", "report.md", "speedup-1.svg", "decomposition-1.svg"]
    assert all(path.stat().st_size > 0 for path in paths)


def test_a_terminal_gets_a_thousand_rows_and_is_told_of_the_rest(
    command: Run, gpu_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "more series" not in command("compare", gpu_run)[1] + command("compare", gpu_run, gpu_run)[1]
    trials = synthetic.Builder(passes=2, pairs=2).trials(synthetic.cases((256, 4096), splits=(2, 3, 4)))
    base = synthetic.write_run(gpu_run.parent / "base", trials, CONFIG)
    slower = [
        replace(
            trial,
            measurements=tuple(
                synthetic.rescaled(m, 1.5) if (m.role, m.variant.split_factor) == ("T2o", 4) else m
                for m in trial.measurements
            ),
        )
        for trial in trials
    ]
    new = synthetic.write_run(gpu_run.parent / "new", slower, CONFIG)
    monkeypatch.setattr(terminal, "MOST_ROWS", 4)
    _, out, _ = command("compare", base)
    assert "and 1 more series: the report and --json have all" in out
    monkeypatch.setattr(terminal, "MOST_ROWS", 1)
    _, out, _ = command("compare", base, new)
    assert "and 2 more series: --json has all; those with a SLOWER row went first" in out
    assert next(line for line in out.splitlines() if line.startswith("streams x")).startswith("streams x4")
    assert len(json.loads(command("compare", base, new, "--json")[1])["changes"]) == 6
