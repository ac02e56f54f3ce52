"""The command line as a user meets it: start-up time, errors, exit codes, and `bench plan`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import cli, version
from bench.assumed_gpus import ASSUMED_GPUS
from bench.running import probe
from bench.running.messages import Ready
from moe_impl.options import Machine

ROOT = Path(__file__).parents[2]
SMOKE = str(ROOT / "configs" / "smoke.yaml")
PREFILL = str(ROOT / "configs" / "deepseek-v3-ep8-prefill.yaml")
HOST_LINK = str(ROOT / "configs" / "host-link.yaml")
H100 = Machine("cuda", "NVIDIA H100 80GB HBM3", 85 * 10**9, 132, (9, 0), "2.13.0", "3.9.0")
SMALL_GPU = Machine("cuda", "NVIDIA RTX 4000", 16 * 10**9, 48, (8, 9), "2.13.0", "3.9.0")
CPU = Machine("cpu", "Some Processor", 16 * 10**9, torch_version="2.13.0")


@pytest.fixture
def plan(monkeypatch, capsys):
    """Runs `bench plan` as if on the given machine; returns (exit code, standard output, standard error)."""

    def run(machine, *arguments, columns=100):
        monkeypatch.setattr(probe, "probe", lambda device: Ready(machine, {}))
        monkeypatch.setenv("COLUMNS", str(columns))
        code = cli.main(["plan", *arguments])
        return code, *capsys.readouterr()

    return run


def run_python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, **options)


def test_help_takes_less_than_three_tenths_of_a_second():
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        assert run_python("-m", "bench.cli", "--help").returncode == 0
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.3


def test_help_lists_every_verb_and_imports_only_click():
    code = (
        "import sys; from bench import cli; code = cli.main(['--help']);"
        "heavy = {'torch', 'pandas', 'pydantic', 'rich', 'ruamel', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines() if line[2:3].strip()] == list(
        cli.VERBS
    )


def test_plan_never_imports_torch_or_pandas():
    code = "import sys, bench.commands.plan; print(sorted({'torch', 'pandas', 'bench'} & set(sys.modules)))"
    assert run_python("-c", code).stdout == "['bench']\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["paln"],
            f"error: unknown verb paln, did you mean plan? allowed: {', '.join(cli.VERBS)} (see bench --help)",
        ),
        (["plan"], "error: Missing argument 'CONFIG'. (see bench plan --help)"),
        (["plan", SMOKE, "--devise", "cpu"], "error: No such option '--devise'."),
        (["plan", "no/such.yaml"], "error: no/such.yaml: no such file"),
        (
            ["plan", SMOKE, "--filter", "tokens=17"],
            "error: --filter: tokens=17 matches nothing, this sweep has: 16, 64",
        ),
    ],
)
def test_a_users_mistake_is_one_line_on_stderr_and_exit_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_every_problem_of_a_sweep_file_is_a_line_of_its_own(tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(Path(SMOKE).read_text().replace("ep_size: 4", "ep_size: 0").replace("passes: 3", "passes: 0"))
    assert cli.main(["plan", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: {path}:") for line in lines)


def test_a_bug_is_one_line_exit_code_70_and_a_kept_traceback(monkeypatch, capsys):
    def broken(device):
        raise ZeroDivisionError("no\nluck")

    monkeypatch.setattr(probe, "probe", broken)
    monkeypatch.delenv("BENCH_TRACEBACK", raising=False)
    assert cli.main(["plan", SMOKE]) == 70
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("internal error: ZeroDivisionError: no luck; the traceback is in ")
    kept = Path(line.split("the traceback is in ")[1].split(" (")[0])
    assert "in broken" in kept.read_text()
    kept.unlink()
    monkeypatch.setenv("BENCH_TRACEBACK", "1")
    assert cli.main(["plan", SMOKE]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_exit_code_130_without_a_traceback(monkeypatch, capsys):
    def interrupted(device):
        raise KeyboardInterrupt

    monkeypatch.setattr(probe, "probe", interrupted)
    assert cli.main(["plan", SMOKE]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_error(form):
    code = (
        "import sys; from bench import cli; from bench.running import probe; from bench.running.messages import Ready;"
        "from moe_impl.options import Machine;"
        "probe.probe = lambda device: Ready(Machine('cpu', 'x', 10**10), {});"
        f"sys.exit(cli.main({['plan', SMOKE, *form]}))"
    )
    reads, writes = os.pipe()
    os.close(reads)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=writes, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writes)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plan", SMOKE], ["plan", SMOKE, "--json"]])
def test_a_full_standard_output_is_one_line(arguments, unbuffered):
    code = (
        "import sys; from bench import cli; from bench.running import probe; from bench.running.messages import Ready;"
        "from moe_impl.options import Machine;"
        "probe.probe = lambda device: Ready(Machine('cpu', 'x', 10**10), {});"
        f"sys.exit(cli.main({arguments}))"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


def test_another_os_error_is_still_internal(monkeypatch, capsys):
    def broken(device):
        raise OSError(5, "made up")

    monkeypatch.setattr(probe, "probe", broken)
    monkeypatch.setenv("BENCH_TRACEBACK", "1")
    assert cli.main(["plan", SMOKE]) == 70
    assert "made up" in capsys.readouterr().err


def test_bench_says_its_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"bench {version.version()}\n"


def test_a_bare_name_says_on_stderr_which_file_it_is(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = plan(CPU, "smoke", "--json")
    assert (code, err) == (0, f"sweep file: {SMOKE}\n")
    assert json.loads(out)["cases"] == 4


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("ep_size: 4", "ep_size: 3", "case.ep_size: found 3, expected a divisor of 8 experts"),
        ("precision: nvfp4-w4a16", "precision: bf16", "variants[0].experts: found triton"),
    ],
)
def test_plan_refuses_a_value_that_can_run_nowhere(plan, tmp_path, right, wrong, said):
    path = tmp_path / "nowhere.yaml"
    path.write_text(Path(SMOKE).read_text().replace(right, wrong))
    code, out, err = plan(H100, str(path))
    assert (code, out) == (2, "")
    assert said in err


def test_plan_says_that_nvfp4_weights_are_held_twice(plan):
    _, out, _ = plan(H100, PREFILL)
    assert "NVFP4 weights: 2 copies, as drawn (the oracle's) and as the backend lays them out." in " ".join(out.split())
    assert "2 copies" not in plan(H100, PREFILL, "--filter", "precision=bf16")[1]


def test_plan_counts_first_and_says_that_everything_runs_on_a_large_gpu(plan):
    code, out, _ = plan(H100, PREFILL)
    first, second, *_ = out.splitlines()
    assert code == 0
    assert first.startswith("20 cases, 60 variants, 5 passes: all cases run here, about ")
    assert second.startswith("NVIDIA H100 80GB HBM3, 79.2 GiB, 132 SMs")
    assert "Skipped" not in out
    assert "hypothetical: link of H800" in out


def test_plan_exits_0_and_says_each_reason_once_where_a_backend_cannot_run(plan):
    code, out, _ = plan(CPU, SMOKE)
    assert code == 0
    assert out.count("experts triton needs a CUDA GPU") == 1
    assert "3 of 6" in out
    assert "cpu: functional check, no performance claim" in out


def test_plan_of_a_measured_link_says_what_it_needs_and_how_its_sizes_are_known(plan):
    code, out, _ = plan(H100, HOST_LINK)
    assert code == 0
    assert out.startswith("6 cases, 18 variants, 5 passes: all cases run here, about ")
    for label in ("measured comm (host link)", "sizes from the pre-drawn routing"):
        assert label in out
    code, out, _ = plan(CPU, HOST_LINK)
    assert code == 0
    assert "no case runs here" in out
    assert "link host_link needs a CUDA GPU" in out


def test_plan_exits_0_where_no_case_runs(plan):
    code, out, _ = plan(CPU, SMOKE, "--filter", "experts=triton")
    assert code == 0
    assert out.startswith("4 cases, 12 variants, 3 passes: no case runs here\n")


def test_plan_says_memory_reasons_once_for_all_sizes(plan):
    _, out, _ = plan(SMALL_GPU, PREFILL)
    assert out.count("needs about") == 2  # of a variant itself, and of the T1 that a variant is compared with
    assert out.count("its T1 cannot run") == 1
    assert "like it" in out


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(("config", "rows"), [(SMOKE, 4), (PREFILL, 20)])
def test_plan_fits_the_terminal_with_one_line_for_each_case(plan, config, rows, columns):
    _, out, _ = plan(H100, config, columns=columns)
    lines = out.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in out
    assert sum(line.split()[:1] != ["total"] and " of " in line and line.endswith(" s") for line in lines[2:]) == rows


def test_plan_as_json_agrees_with_the_sweep(plan):
    code, out, _ = plan(CPU, SMOKE, "--json")
    data = json.loads(out)
    assert code == 0
    assert (data["cases"], data["running_cases"], data["variants"], data["running_variants"]) == (4, 4, 24, 12)
    assert [row["tokens"] for row in data["plan"]] == [16, 64, 16, 64]
    skipped = {variant["label"]: variant["skipped"] for variant in data["plan"][0]["variants"]}
    assert skipped["off torch"] is None
    assert skipped["off triton"] == "experts triton needs a CUDA GPU"
    per_pass = sum(row["estimated_s_per_pass"] for row in data["plan"])
    assert data["estimated_s"] > data["passes"] * per_pass


def test_a_narrow_terminal_costs_columns_and_no_digit(plan):
    wide, narrow = (plan(CPU, SMOKE, columns=columns)[1] for columns in (100, 40))
    assert "…" not in narrow
    assert narrow.count("Too narrow for: ") == 1
    assert "Too narrow for" not in wide
    assert [line for line in narrow.splitlines() if line != line.rstrip()] == []


def test_a_longer_protocol_is_estimated_to_take_longer(plan, tmp_path):
    longer = tmp_path / "longer.yaml"
    longer.write_text(Path(SMOKE).read_text().replace("round_min: 0.05 s", "round_min: 5 s"))
    short_s, long_s = (json.loads(plan(CPU, path, "--json")[1])["estimated_s"] for path in (SMOKE, str(longer)))
    # 3 passes x 4 cases x 2 rounds x (5 - 0.05) s
    assert long_s - short_s == pytest.approx(3 * 4 * 2 * 4.95)


def test_a_gpu_that_is_not_here_is_planned_for_by_name(plan):
    said = {}
    for name, gpu in ASSUMED_GPUS.items():
        code, out, err = plan(CPU, PREFILL, "--gpu", name, columns=200)
        assert code == 0
        assert f"as if on {gpu.name}" in err
        assert out.splitlines()[1].startswith(f"{gpu.name}, ")
        said[name] = out
    assert "emulated (exact products)" in said["h200"]
    assert "native (FP4 tensor cores)" in said["b200"]
    code, _, err = plan(CPU, PREFILL, "--gpu", "h100", "--device", "cpu")
    assert (code, err) == (2, "error: --gpu h100: not together with --device cpu\n")


NOTHING_OVERLAPPED = "No overlapped variant is listed, T1 alone: split_factor 1 and engine serial overlap nothing."


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("{engine: threads, split_factor: 1}", NOTHING_OVERLAPPED),
        ("{engine: serial, split_factor: 2}", NOTHING_OVERLAPPED.replace("T1", "T1 and T2s")),
        (
            "{split_factor: [2, 64]}",
            "Fewer tokens than micro-batches, some of them empty: streams x64 torch at 16, 32 tokens.",
        ),
        ("{split_factor: [2, 16]}", None),
    ],
)
def test_plan_remarks_on_what_its_list_does_not_show(plan, tmp_path, variant, said):
    case = "{model: deepseek-v3, ep_size: 8, tokens: [16, 32, 64], precision: bf16, link: local}"
    (tmp_path / "sweep.yaml").write_text(f"schema: 1\ncase: {case}\nvariants: [{variant}]\n")
    code, out, _ = plan(H100, str(tmp_path / "sweep.yaml"), columns=200)
    assert code == 0
    told = [line.removeprefix("Remarks").strip() for line in out.splitlines() if line.startswith("Remarks")]
    assert told == ([said] if said else [])
