"""``measure: {refine: break_even}`` from the command line to the run folder, on a made-up H100 with a fake worker."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import synthetic
from small_sweep import FAKE_WORKER, Script
from synthetic import H100, Truth

from bench import report
from bench.cases import Case
from bench.commands import sweep
from bench.errors import Exit
from bench.render import files
from bench.run_folder import open_run
from bench.running import probe, supervisor
from bench.running.messages import Ready

Bench = Callable[[str], tuple[int, str, str]]
FILE = """\
# Question: where exactly?
schema: 1
case:
  {model: deepseek-v3, ep_size: 8, layers: 2, precision: bf16, tokens: [256, 1024, 4096],
   link: {paced: h800-nvlink-ep8}}
variants:
  - {experts: torch, split_factor: 2}
measure: {passes: 3, refine: break_even, refine_cases: 2, link_sensitivity: true}
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "Sweep", partial(supervisor.Sweep, command=FAKE_WORKER))
    monkeypatch.setattr(files, "write", lambda model, folder: [])
    Path("small.yaml").write_text(FILE)
    script = Script(tmp_path, monkeypatch)
    script.write(gpu=True)
    for module in (sweep, probe):
        monkeypatch.setattr(module, "probe", lambda device: Ready(H100, {}))
    return script


def points() -> list[tuple[str, int, int]]:
    return sorted((t.link.name, t.workload.tokens, t.pass_index) for t in open_run(Path("run")).trials())


def refining(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("refining: ")]


def true_crossing(case: Case) -> float:
    """Where the made-up H100's T1 and T2o take equally long, by bisection."""
    off, on = case.variants[0], case.variants[-1]

    def gains(tokens: int) -> bool:
        work = replace(case.workload, tokens=tokens)
        return Truth().span_s(work, case.link, on) < Truth().span_s(work, case.link, off)

    return bisect_left(range(4096), True, lo=256, key=gains)


def test_a_sweep_goes_on_around_its_break_even(bench: Bench) -> None:
    code, out, err = bench("sweep small.yaml --out run")
    assert code == Exit.DONE, err
    told = refining(err)
    assert sum(" tokens between " in line for line in told) == 2
    assert [line.rpartition(" at ")[2] for line in told if "bandwidth" in line] == [
        "bandwidth x0.5",
        "bandwidth x2",
    ] * 2
    stored = points()
    assert len(stored) == 3 * (3 + 2 + 4), "each in every pass, once"
    assert len(set(stored)) == len(stored)
    assert "epends on the link" in " ".join(out.split())
    model = report.build(open_run(Path("run")))
    (section,) = model.sections
    assert section.break_even.bracket is not None
    low, high = section.break_even.bracket
    assert low < true_crossing(synthetic.cases((256,))[0]) < high <= 2 * low
    assert model.coverage.complete


def test_a_sweep_that_is_cut_off_while_refining_goes_on_there(bench: Bench, script: Script) -> None:
    script.write({"do": "exit", "at": "start", "worker": 4}, {"do": "exit", "at": "start", "worker": 5}, gpu=True)
    code, _, err = bench("sweep small.yaml --out run")
    assert code == Exit.INTERNAL, err
    before = points()
    assert len(before) == 3 * 3 + 1, "one pass of the first round"
    script.write(gpu=True)
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.DONE, err
    after = points()
    assert set(before) < set(after)
    assert len(after) == len(set(after)) == 3 * (3 + 2 + 4)
    assert bench("sweep small.yaml --out run --resume")[0] == Exit.DONE
    assert points() == after
    assert len(script.workers) == 2 + 3 + 3, "two passes that were left, one more round, the what-ifs; then nothing"


def test_plan_says_how_many_cases_may_be_added(bench: Bench) -> None:
    code, out, _ = bench("plan small.yaml")
    assert code == Exit.DONE
    assert "up to 2 cases may be added around break-evens" in " ".join(out.split())


def test_a_run_that_was_measured_without_refinement_may_be_refined_later(bench: Bench) -> None:
    asked = "refine: break_even, refine_cases: 2, link_sensitivity: true"
    Path("small.yaml").write_text(FILE.replace(asked, "rounds: 6"))
    code, _, err = bench("sweep small.yaml --out run")
    assert code == Exit.DONE
    assert not refining(err)
    assert len(points()) == 3 * 3
    Path("small.yaml").write_text(FILE.replace(asked, "refine: break_even, refine_cases: 1"))
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.DONE, err
    assert len(refining(err)) == 1
    assert len(points()) == 3 * 4
    Path("small.yaml").write_text(FILE.replace(asked, "rounds: 6"))
    code, _, err = bench("sweep small.yaml --out run --resume")
    assert code == Exit.BAD_INPUT
    assert "the run holds 1 case that the sweep file does not list" in err
