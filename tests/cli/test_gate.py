"""`bench compare BASE NEW [--gate]` as a user and a workflow meet it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import synthetic
from ruamel.yaml import YAML

from bench.device_work import DeviceWork
from bench.results import Measurement
from moe_impl.links import LOCAL
from moe_impl.options import Workload

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "GATE.md").read_text()
CONFIG = """\
schema: 1
case: {model: deepseek-v3, ep_size: 8, layers: 2, tokens: [256, 4096], precision: bf16, link: {paced: h800-nvlink-ep8}}
variants: [{engine: streams, split_factor: 2}]
measure: {passes: 5}
"""

Run = Callable[..., tuple[int, str, str]]
Stretch = Callable[[Measurement, int, Workload], Measurement]


def slower(factor: float) -> Stretch:
    """T2o of 4096 tokens."""

    def change(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.rescaled(m, factor) if m.role == "T2o" and work.tokens == 4096 else m

    return change


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder."""

    def write(name: str, *, tokens: tuple[int, ...] = (256, 4096), config: str = CONFIG, **settings: object) -> Path:
        cases = synthetic.cases(tokens, settings.pop("precisions", ("bf16",)))
        return synthetic.write_run(tmp_path / name, synthetic.Builder(pairs=6, **settings).trials(cases), config)

    return write


Store = Callable[..., Path]


def test_the_verdict_comes_first(command: Run, stored: Store) -> None:
    base, new = stored("base"), stored("new", seed=2, change=slower(1.04))
    code, out, err = command("compare", base, new)
    assert (code, err) == (0, "")  # no gate, no exit code
    first, *rest = out.splitlines()
    assert re.fullmatch(
        r"TBO's speed-up is lower in NEW in 1 of 2 comparisons: worst 0\.96\dx \[0\.9\d\d, 0\.9\d\d\]"
        r" at 4096 tokens, streams x2 torch, bf16\.",
        first,
    )
    text = "\n".join(rest)
    assert not re.search("^Gate:", text, re.MULTILINE)
    for said in (
        f"BASE {base}, NEW {new}.",
        "Times of NEW against BASE: ",
        "H100",
        "5 against 5 passes (95 % interval)",
    ):
        assert said in text
    assert "modelled comm, measured compute" in text


@pytest.mark.parametrize(("factor", "code", "said"), [(1.04, 1, "regression"), (1.0, 0, "passed"), (0.96, 0, "passed")])
def test_a_gate_ends_1_on_a_regression_alone(command: Run, stored: Store, factor: float, code: int, said: str) -> None:
    found, out, _ = command("compare", stored("base"), stored("new", seed=2, change=slower(factor)), "--gate")
    assert found == code
    assert out.splitlines()[1] == f"Gate: {said}, exit code {code}."


def test_a_cpu_is_undecided_in_a_gate_and_no_claim(command: Run, stored: Store) -> None:
    runs = stored("base", machine=synthetic.CPU), stored("new", machine=synthetic.CPU, seed=2)
    assert command("compare", *runs)[0] == 0
    code, out, _ = command("compare", *runs, "--gate")
    assert code == 3
    assert out.splitlines()[0] == "Functional check on a CPU, no performance claim."
    assert "UNDECIDED at 256 and 4096: cpu" in out


def test_a_row_without_counterpart_ends_a_gate_with_4_and_is_listed(command: Run, stored: Store) -> None:
    base, new = stored("base"), stored("new", tokens=(512, 4096), seed=2, change=slower(1.04))
    code, out, _ = command("compare", base, new, "--gate")
    assert code == 4
    assert "Not comparable: 1 of BASE\n  256 tokens, streams x2 torch, bf16" in out
    assert "not in NEW" in out
    assert "Only in NEW, or not timed in BASE: 1\n  512 tokens, streams x2 torch, bf16" in out
    assert command("compare", base, new)[0] == 0


def test_other_kernels_and_launches_are_listed_beside_the_times_and_end_no_gate(command: Run, stored: Store) -> None:
    def doing(launches: int, *kernels: str) -> Stretch:
        def change(m: Measurement, pass_index: int, work: Workload) -> Measurement:
            last = m.role == "T2o" and pass_index == 4
            return replace(m, device_work=DeviceWork(1e-3, 1e-3, launches, kernels)) if last else m

        return change

    base, new = (
        stored("base", change=doing(812, "gemm")),
        stored("new", seed=2, change=doing(930, "a", "f<{1}>", "gemm")),
    )
    code, out, _ = command("compare", base, new, "--gate")
    assert code == 0
    said = "Work of T2o differs at 256 and 4096: 812 -> 930 launches an iteration; kernels 2 new (a, f<{1}>)."
    assert said in " ".join(out.split())
    row, _ = json.loads(command("compare", base, new, "--json")[1])["changes"]
    assert row["other_work"] == [
        {"role": "T2o", "base_launches": 812, "new_launches": 930, "new_kernels": ["a", "f<{1}>"], "gone_kernels": []}
    ]


def test_runs_that_have_nothing_in_common_are_not_comparable_without_a_gate_either(command: Run, stored: Store) -> None:
    base, new = stored("base"), stored("new", tokens=(512,), seed=2)
    code, out, _ = command("compare", base, new)
    assert code == 4
    assert out.startswith("Nothing was compared.")
    assert "Not comparable: 2 of BASE" in out
    assert command("compare", base, new, "--json")[0] == 4


def test_a_failure_in_new_is_named_with_its_status(command: Run, stored: Store) -> None:
    def crash(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        bad = m.role == "T2o" and work.tokens == 256 and pass_index == 3
        return synthetic.failed(m, reason="illegal\naccess") if bad else m

    code, out, _ = command("compare", stored("base"), stored("new", change=crash), "--gate")
    assert code == 4
    assert "T2o error in pass 4 of NEW: illegal access" in out


def test_unlike_runs_are_refused_in_one_line_that_says_why(command: Run, stored: Store) -> None:
    other = replace(synthetic.H100, name="NVIDIA H200")
    base, new = stored("base"), stored("new", seed=2, machine=other)
    code, out, err = command("compare", base, new)
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "machine NVIDIA H100 80GB HBM3 against NVIDIA H200 (--anyway " in err
    code, out, err = command("compare", base, new, "--anyway")
    assert (code, err) == (0, "")
    assert "Doubt in every row: machine: NVIDIA H100 80GB HBM3 in BASE, NVIDIA H200 in NEW." in out
    assert command("compare", base, new, "--anyway", "--gate")[0] == 4
    told = json.loads(command("compare", base, new, "--anyway", "--json")[1])
    assert all(row["doubts"] for row in told["changes"])


def test_across_precision_one_folder_stands_against_itself(command: Run, stored: Store) -> None:
    config = CONFIG.replace("precision: bf16", "precision: [bf16, nvfp4-w4a16]")
    run = stored("both", precisions=("bf16", "nvfp4-w4a16"), config=config)
    code, out, _ = command("compare", run, run, "--across", "precision", "--filter", "tokens=4096", "--json")
    told = json.loads(out)
    (row,) = told["changes"]
    assert code == 0
    assert (row["base"]["workload"]["precision"], row["new"]["workload"]["precision"]) == ("bf16", "nvfp4-w4a16")
    assert (row["base"]["variant"]["experts"], row["new"]["variant"]["experts"]) == ("torch", "triton")
    assert told["across"] == "precision"
    title = "streams x2 torch, bf16 -> streams x2 triton, nvfp4-w4a16"
    printed = command("compare", run, run, "--across", "precision")[1]
    assert title in printed
    assert command("compare", run, "--across", "precision") == (0, printed, "")
    assert printed.startswith("TBO's speed-up is lower at nvfp4-w4a16 than at bf16 in ")
    assert f"{run}, across precision: BASE stands left of -> below" in printed


def test_across_link_within_one_run_each_pair_stands_once(command: Run, tmp_path: Path) -> None:
    cases = synthetic.cases((256, 4096))
    cases += [replace(case, link=LOCAL) for case in cases]
    run = synthetic.write_run(tmp_path / "links", synthetic.Builder(pairs=6).trials(cases), CONFIG)
    code, out, err = command("compare", run, "--across", "link")
    assert (code, err) == (0, "")
    assert re.match(r"TBO's speed-up is lower at local than at h800-nvlink-ep8 in [12] of 2 comparisons: ", out)
    assert "bf16 · link paced h800-nvlink-ep8 -> streams x2 torch, bf16 · deepseek-v3" in out
    changes = json.loads(command("compare", run, "--across", "link", "--json")[1])["changes"]
    assert [row["new"]["link"]["name"] for row in changes] == ["local", "local"]


def test_one_run_at_one_value_of_the_axis_is_not_comparable(command: Run, stored: Store) -> None:
    run = stored("one")
    code, out, err = command("compare", run, "--across", "precision")
    assert (code, out) == (4, "")
    assert err.startswith(f"error: {run}: nothing to compare across precision, its overlapped variants were timed at")


def test_nothing_to_stand_across_is_not_comparable(command: Run, stored: Store) -> None:
    code, _, err = command("compare", stored("base"), stored("new", seed=2), "--across", "precision")
    assert code == 4
    assert "BASE's must come before NEW's in bf16, fp8, nvfp4-w4a16, nvfp4" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--across", "precison"], "--across: found precison, did you mean precision? allowed: precision"),
        (["--filter", "tokens=3"], "tokens=3 matches nothing"),
        (["--filter", "token=256"], "did you mean tokens"),
    ],
)
def test_wrong_input_exits_2_in_one_line(command: Run, stored: Store, arguments: list[str], said: str) -> None:
    code, out, err = command("compare", stored("base"), stored("new"), *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


@pytest.mark.parametrize("option", [["--gate"], ["--absolute"], ["--anyway"]])
def test_what_needs_two_runs_says_so(command: Run, stored: Store, option: list[str]) -> None:
    code, out, err = command("compare", stored("base"), *option)
    assert (code, out) == (2, "")
    assert err == f"error: {option[0]}: compares two runs, found one: bench compare BASE NEW {option[0]}\n"


def test_a_filter_holds_for_both_and_may_match_in_one_alone(command: Run, stored: Store) -> None:
    base, new = stored("base"), stored("new", tokens=(4096,), seed=2)
    assert command("compare", base, new, "--filter", "tokens=4096", "--gate")[0] == 0
    code, out, err = command("compare", base, new, "--filter", "tokens=256", "--gate")
    assert (code, err) == (4, "")
    assert out.startswith("Nothing was compared.")


def test_other_margins_are_bases(command: Run, stored: Store) -> None:
    wide = CONFIG.replace("passes: 5", "passes: 5, decide_beyond: 6 %, same_within: 6 %")
    new = {"seed": 2, "change": slower(1.04)}
    assert command("compare", stored("a", config=wide), stored("b", **new), "--gate")[0] == 0
    code, out, _ = command("compare", stored("c"), stored("d", config=wide, **new), "--gate")
    assert code == 1
    assert "measure.decide_beyond: 0.002 in BASE, 0.06 in NEW" in out


def test_differences_of_the_environment_are_listed(command: Run, stored: Store) -> None:
    base, new = stored("base"), stored("new", seed=2)
    (new / "environment.json").write_text(json.dumps({"torch": "2.14.0", "gpu": {"sm_clock_mhz": 345}}))
    code, out, _ = command("compare", base, new, "--gate")
    assert code == 0
    assert "Recorded differently: 2\n" in out
    assert "torch: 2.13.0 in BASE, 2.14.0 in NEW" in out
    assert "gpu.sm_clock_mhz: unknown in BASE, 345 in NEW" in out
    assert "Recorded differently" not in command("compare", base, base)[1]


def test_absolute_lets_times_end_the_gate(command: Run, stored: Store) -> None:
    def all_slower(m: Measurement, pass_index: int, work: Workload) -> Measurement:
        return synthetic.rescaled(m, 1.05)

    runs = stored("base"), stored("new", seed=2, change=all_slower)
    code, out, _ = command("compare", *runs, "--gate")
    assert code == 0
    assert "Times of NEW against BASE: 4 SLOWER." in out
    assert command("compare", *runs, "--gate", "--absolute")[0] == 1


def test_json_is_one_document_in_si(command: Run, stored: Store) -> None:
    code, out, err = command("compare", stored("base"), stored("new", seed=2, change=slower(1.04)), "--gate", "--json")
    told = json.loads(out)
    assert (code, err) == (1, "")
    assert told["schema"] == 1
    assert told["gate"] == {"exit_code": 1, "outcome": "regression", "absolute": False}
    small, large = told["changes"]
    assert (small["verdict"], large["verdict"]) == ("SAME", "SLOWER")
    assert small["base"]["case_id"] == small["new"]["case_id"] != large["base"]["case_id"]
    assert large["change"]["low"] < large["change"]["ratio"] == pytest.approx(1 / 1.04, rel=3e-3)
    assert large["change"]["ratio"] == pytest.approx(large["new"]["speedup"] / large["base"]["speedup"])
    assert large["times"]["T2o"]["new_s"] == pytest.approx(1.04 * large["times"]["T2o"]["base_s"], rel=5e-3)
    assert large["change"]["passes"] == [5, 5]


@pytest.mark.parametrize("columns", [24, 60, 80])
def test_a_narrow_terminal_cuts_no_number(command: Run, stored: Store, columns: int) -> None:
    runs = stored("base"), stored("new", seed=2, change=slower(1.04))
    _, out, _ = command("compare", *runs, "--gate", columns=columns)
    assert max(map(len, out.splitlines())) <= columns
    assert "…" not in out
    assert ("Too narrow for:" in " ".join(out.split())) == (columns < 60)


def test_a_torn_line_of_either_run_is_named(command: Run, stored: Store) -> None:
    base, new = stored("base"), stored("new", seed=2)
    results = new / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-100])
    code, _, err = command("compare", base, new)
    assert code == 0
    assert err.startswith(f"{results}:10: unfinished last line left out")


# docs/GATE.md


def workflow() -> dict[str, object]:
    return YAML(typ="safe").load(PAGE.split("```yaml\n")[1].split("```")[0])


def in_workflow(**environment: str) -> subprocess.CompletedProcess[str]:
    """Its gate step, as GitHub's runner calls it; ``bench`` is this checkout's."""
    told = workflow()
    (step,) = (step for step in told["jobs"]["gate"]["steps"] if step.get("name") == "gate")
    script = f'bench() {{ "{sys.executable}" -m bench.cli "$@"; }}\n{step["run"]}'
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **told["env"], **environment}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script], cwd=ROOT, env=variables, capture_output=True, text=True
    )


def test_the_workflow_of_the_page_passes() -> None:
    done = in_workflow()
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nGate: passed, exit code 0.\n" in done.stdout


def test_what_the_page_says_of_an_undecided_row_is_true() -> None:
    rows = re.search(r"With `ROWS: (\S+)`", PAGE).group(1)
    done = in_workflow(ROWS=rows)
    assert done.returncode == 0
    assert "Gate: undecided, exit code 3." in done.stdout
    assert "::warning::" in done.stdout


def test_the_page_lists_the_precisions_and_every_exit_code_of_a_gate(command: Run) -> None:
    assert re.findall(r"^\| (\d) \|", PAGE, re.MULTILINE) == ["4", "1", "3", "0"]
    options = set(re.findall(r"--[a-z]+", command("compare", "--help")[1])) - {"--help", "--json"}
    assert options <= set(re.findall(r"--[a-z]+", PAGE))
