"""`bench compare RUN` and `bench report RUN` as a user meets them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic

from bench import cli

CONFIG = """\
# Question: from how many tokens on?
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256, 4096], precision: bf16, link: {paced: h800-nvlink-ep8}}
variants: [{engine: streams, split_factor: 2}]
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line; returns (exit code, standard output, standard error)."""

    def run(*arguments: str | Path, columns: int = 100) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def gpu_run(tmp_path: Path) -> Path:
    trials = synthetic.Builder().trials(synthetic.cases((256, 4096)))
    return synthetic.write_run(tmp_path / "gpu", trials, CONFIG)


@pytest.fixture
def cpu_run(tmp_path: Path) -> Path:
    trials = synthetic.Builder(machine=synthetic.CPU, passes=2, pairs=2).trials(synthetic.cases((256, 4096)))
    return synthetic.write_run(tmp_path / "cpu", trials, CONFIG)


def test_compare_prints_the_decision_first(bench: Run, gpu_run: Path) -> None:
    code, out, err = bench("compare", gpu_run)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("TBO (streams x2 torch, bf16) pays from 4096 tokens on: ")
    assert "Question: from how many tokens on?" in out
    for said in ("SLOWER", "FASTER", "Break-even between 256 and 4096", "Noise floor", "Minimum detectable", "H800"):
        assert said in out


def test_undecided_exits_0(bench: Run, cpu_run: Path) -> None:
    code, out, _ = bench("compare", cpu_run)
    assert code == 0
    assert out.startswith("Functional check on a CPU, no performance claim.")
    assert out.count("UNDECIDED") >= 2


def test_json_is_one_document_and_nothing_else(bench: Run, gpu_run: Path) -> None:
    code, out, err = bench("compare", gpu_run, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["verdict"] for row in told["comparisons"]] == ["SLOWER", "FASTER"]
    assert told["run"] == str(gpu_run)


def test_a_filter_narrows_the_table(bench: Run, gpu_run: Path) -> None:
    code, out, _ = bench("compare", gpu_run, "--filter", "tokens=256", "--json")
    assert code == 0
    assert [row["workload"]["tokens"] for row in json.loads(out)["comparisons"]] == [256]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--filter", "tokens=3"], "tokens=3 matches nothing"),
        (["--filter", "token=256"], "did you mean tokens"),
    ],
)
def test_a_wrong_filter_exits_2_in_one_line(bench: Run, gpu_run: Path, arguments: list[str], said: str) -> None:
    code, out, err = bench("compare", gpu_run, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", ["compare", "report"])
def test_no_run_folder_exits_2_in_one_line(bench: Run, tmp_path: Path, verb: str) -> None:
    code, out, err = bench(verb, tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_run_without_trials_is_not_comparable(bench: Run, tmp_path: Path) -> None:
    code, _, err = bench("compare", synthetic.write_run(tmp_path / "empty", [], CONFIG))
    assert code == 4
    assert "no results yet" in err


def test_report_writes_its_files_and_prints_their_paths(bench: Run, gpu_run: Path) -> None:
    code, out, _ = bench("report", gpu_run)
    assert code == 0
    paths = [Path(line) for line in out.splitlines()]
    assert [path.name for path in paths] == ["report.html", "report.md", "speedup-1.svg", "decomposition-1.svg"]
    assert all(path.stat().st_size > 0 for path in paths)
