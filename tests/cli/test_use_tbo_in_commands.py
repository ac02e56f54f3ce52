"""``USE_TBO`` from the shell to the exit code, the resolved config and the report."""

import json
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from small_sweep import FAKE_WORKER, SWEEP_FILE, Script

from bench import cli
from bench.commands import sweep
from bench.errors import Exit
from bench.run_folder import open_run
from bench.running import probe, supervisor
from bench.running.messages import Ready

LISTED = SWEEP_FILE.replace("nvfp4-w4a16", "bf16")
UNLISTED = LISTED.replace("variants:\n  - {experts: torch}\n", "")
Call = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "Sweep", partial(supervisor.Sweep, command=FAKE_WORKER))
    script = Script(tmp_path, monkeypatch)
    for module in (sweep, probe):
        monkeypatch.setattr(module, "probe", lambda device: Ready(script.machine, {}))
    Path("listed.yaml").write_text(LISTED)
    Path("unlisted.yaml").write_text(UNLISTED)

    def call(line: str) -> tuple[int, str, str]:
        code = cli.main(shlex.split(line))
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("value", [None, "1"])
def test_a_sweep_without_variants_compares_off_with_on(
    bench: Call, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("USE_TBO", value)
    code, out, err = bench("sweep unlisted.yaml --out run")
    assert code == Exit.DONE, err
    assert "USE_TBO" not in err
    assert "No overlapped variant" not in err
    roles = {tuple(m.role for m in trial.measurements) for trial in open_run(Path("run")).trials()}
    assert roles == {("T1", "T2s", "T2o")}
    assert "  - {engine: [streams], split_factor: [2], receive: [worst_case]}\n" in (
        Path("run/config.resolved.yaml").read_text()
    )
    assert "streams x2 torch, bf16" in out


def test_use_tbo_0_measures_t1_and_reports_that_there_is_no_verdict(
    bench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USE_TBO", "0")
    code, out, err = bench("sweep unlisted.yaml --out run")
    assert code == Exit.DONE, err
    assert "\nNo overlapped variant is listed, T1 alone: " in err
    said = "No verdict: T1 alone, no overlapped variant to compare with."
    assert said in " ".join(out.split())
    assert {tuple(m.role for m in trial.measurements) for trial in open_run(Path("run")).trials()} == {("T1",)}
    assert "  - {split_factor: [1]}\n" in Path("run/config.resolved.yaml").read_text()
    for name in ("report.html", "report.md"):
        assert said in (Path("run") / name).read_text()

    monkeypatch.delenv("USE_TBO")  # the run remembers its variants, not the shell
    for verb in ("compare run", "report run"):
        assert bench(verb)[0] == Exit.DONE
    code, out, _ = bench("compare run --json")
    assert (code, len(json.loads(out)["alone"])) == (Exit.DONE, 1)


@pytest.mark.parametrize("verb", ["sweep", "plan"])
def test_another_value_is_one_line_and_exit_code_2(bench: Call, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("USE_TBO", "yes")
    assert bench(f"{verb} unlisted.yaml") == (
        Exit.BAD_INPUT,
        "",
        "error: USE_TBO: found 'yes', allowed: 0, 1, or unset (which means 1)\n",
    )
    assert not Path("runs").exists()


@pytest.mark.parametrize("verb", ["sweep", "plan"])
def test_with_variants_listed_one_line_says_that_it_was_ignored(
    bench: Call, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    ignored = "USE_TBO=0 is ignored: the sweep file lists its variants\n"
    assert ignored not in bench(f"{verb} listed.yaml")[2]
    monkeypatch.setenv("USE_TBO", "0")
    code, out, err = bench(f"{verb} listed.yaml")
    assert code == Exit.DONE
    assert err.count(ignored) == 1
    assert "streams x2 torch" in out


def test_plan_without_variants_plans_what_use_tbo_means(bench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench("plan unlisted.yaml")[1].startswith("2 cases, 6 variants, 2 passes: all cases run here")
    monkeypatch.setenv("USE_TBO", "0")
    assert bench("plan unlisted.yaml")[1].startswith("2 cases, 2 variants, 2 passes: all cases run here")


def test_a_split_that_turns_itself_off_is_planned_as_such(bench: Call) -> None:
    Path("off.yaml").write_text(LISTED.replace("torch}", "torch, split: {policy: equal, min_tokens: 17}}"))
    code, out, _ = bench("plan off.yaml --json")
    labels = [case["labels"] for case in json.loads(out)["plan"]]
    assert code == Exit.DONE
    assert ["TBO turned itself off" in said for said in labels] == [True, False], "16 tokens, and 32"
    code, out, _ = bench("sweep off.yaml --filter split=equal-min17,tokens=16")
    assert code == Exit.DONE
    assert "streams x2 equal-min17 torch" in out
