"""``experts: auto`` through the whole command line: real workers on a CPU, with fakes to choose from."""

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import two_backends
from small_sweep import SWEEP_FILE, Script

from bench.commands import sweep
from bench.errors import Exit
from bench.results import Status
from bench.run_folder import open_run
from bench.running import settled, supervisor
from bench.running.messages import Ready

FILE = SWEEP_FILE.replace("tokens: [16, 32]", "tokens: 16").replace("experts: torch", "experts: auto")
QUICK = "measure: {passes: 2, rounds: 1, round_min: 1 ms, warm_up: 0 s}"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """The first pass sees a fast triton, the second would rather have humming."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "Sweep", partial(supervisor.Sweep, command=(sys.executable, two_backends.__file__)))
    monkeypatch.setattr(settled, "unsupported_reason", lambda *what: None)  # as on a machine that has both
    passes = [{"triton": "fast", "humming": "slow"}, {"triton": "slow", "humming": "fast"}]
    Path("backends.json").write_text(json.dumps(passes))
    monkeypatch.setenv("TWO_BACKENDS", str(tmp_path / "backends.json"))
    monkeypatch.setenv("PYTHONPATH", str(Path(two_backends.__file__).parent), prepend=":")
    Path("auto.yaml").write_text(FILE.replace("measure: {passes: 2, case_limit: 5 s}", QUICK))
    script = Script(tmp_path, monkeypatch)
    monkeypatch.setattr(sweep, "probe", lambda device: Ready(script.machine, {}))
    return script


def test_one_choice_a_case_is_stored_and_shown(bench) -> None:
    code, _, err = bench("sweep auto.yaml --out run")
    assert code == Exit.DONE, err
    trials = open_run(Path("run")).trials()
    assert [trial.pass_index for trial in trials] == [0, 1]
    first, second = (trial.experts_choice for trial in trials)
    assert first is not None
    assert first.experts == "triton"
    assert first.t1_s["triton"] < first.t1_s["humming"]
    assert second == first, "though the second pass would choose humming"
    for trial in trials:
        assert {(m.status, m.variant.experts) for m in trial.measurements} == {(Status.OK, "auto")}
        assert all("experts auto: triton" in m.labels for m in trial.measurements)
    assert "experts auto: triton" in Path("run/report.md").read_text()
    assert "experts auto: triton" in Path("run/report.html").read_text()
    code, out, err = bench("compare run")
    assert code == Exit.DONE, err
    assert "experts auto: triton" in " ".join(out.split())
