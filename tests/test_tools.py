"""The tools that measure on a GPU measure what they say, as far as a CPU can tell."""

import os
import runpy
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from bench.cases import expand
from bench.config import load
from moe_impl.links import LOCAL
from moe_impl.options import Variant, Workload
from moe_impl.overlap.schedule import Schedule, for_variant
from moe_impl.overlap.turns import Turns
from moe_impl.shapes import ModelShape
from moe_impl.support import UNBOUNDED, unsupported_reason

ROOT = Path(__file__).parents[1]
WORKLOAD = Workload(ModelShape(64, 64, 8, 3), ep_size=4, layers=2, tokens=8, precision="bf16")
PLANTED_S = 1e-3
MEMCHECKED = ("experts: torch", "experts: auto", "experts: torch, launch: graph")


@pytest.fixture(scope="module")
def yield_cost() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "yield_cost.py"))


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return for_variant(Variant("torch"), WORKLOAD)


class SlowAtHandOvers:
    """Lanes on which each hand-over costs the issuing host what is planted."""

    def __init__(self, schedule: Schedule) -> None:
        self._slow = schedule.hand_overs

    @contextmanager
    def issuing(self, position: int) -> Iterator[None]:
        yield
        if position in self._slow:
            time.sleep(PLANTED_S)


def test_without_yields_are_the_same_ops_with_what_they_wait_for(
    yield_cost: dict[str, Any], schedule: Schedule
) -> None:
    plain: Schedule = yield_cost["without_yields"](schedule)
    assert len(plain.hand_overs) == schedule.num_ubatches - 1 < len(schedule.hand_overs)

    def edges(one: Schedule) -> set[tuple[str, str]]:
        return {(str(one.ops[before]), str(op)) for op in one.ops for before in op.after}

    assert sorted(map(str, plain.ops)) == sorted(map(str, schedule.ops))
    assert edges(plain) == edges(schedule)


def test_a_planted_cost_of_each_yield_is_found(yield_cost: dict[str, Any], schedule: Schedule) -> None:
    cost = yield_cost["of_streams"](schedule, SlowAtHandOvers(schedule), repeats=5)
    assert cost.yields == len(schedule.hand_overs)
    assert PLANTED_S < cost.each_s(median) < 3 * PLANTED_S
    assert str(cost).startswith("streams: ")


def test_threads_hand_over_once_a_yield(
    yield_cost: dict[str, Any], schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the runs with yields more often by as many as the cost is divided by."""
    counted, plain = Counter[bool](), Turns.hand_over

    def hand_over(turns: Turns, position: int, taker: int) -> None:
        counted[turns._schedule is schedule] += 1
        plain(turns, position, taker)

    monkeypatch.setattr(Turns, "hand_over", hand_over)
    cost = yield_cost["of_threads"](schedule, repeats=2)
    runs = yield_cost["SETTLING_RUNS"] + 2
    assert counted == {True: runs * len(schedule.hand_overs), False: runs}, "the turn passes once in any run"
    assert cost.yields * runs == counted[True] - counted[False]
    assert len(cost.with_s) == len(cost.without_s) == 2


def test_memcheck_runs_every_link_engine_receive_and_precision() -> None:
    cases = expand(load(ROOT / "tests" / "gpu" / "memcheck.yaml"))
    ran = {
        (case.workload.precision, case.link.transport, variant.engine, variant.receive)
        for case in cases
        for variant in case.variants
        if unsupported_reason(case.workload, case.link, variant, UNBOUNDED[0]) is None
    }
    precisions, transports, engines, receives = (set(values) for values in zip(*ran, strict=True))
    assert len(ran) == len(precisions) * len(transports) * len(engines) * len(receives) == 4 * 3 * 3 * 2
    assert LOCAL.transport in transports


@pytest.fixture(scope="module")
def memcheck() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools" / "memcheck.py"))


def swept(folder: Path, variants: str) -> Path:
    """A sweep file that a CPU can run."""
    (folder / "sweep.yaml").write_text(
        "schema: 1\n"
        "case: {model: {hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 2}, ep_size: 4, layers: 1,"
        " tokens: [5, 6], precision: nvfp4-w4a16, link: local}\n"
        f"variants: [{variants}]\n"
    )
    return folder / "sweep.yaml"


def test_memcheck_lists_what_it_leaves_out(
    memcheck: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a CPU, which stands for the GPU, without compute-sanitizer."""
    kept, auto, graph = (f"{{engine: streams, split_factor: 2, {more}}}" for more in MEMCHECKED)
    assert memcheck["run"](swept(tmp_path, f"{kept}, {auto}, {graph}"), None, "cpu") == 0
    said = capsys.readouterr().out
    assert "tokens=5: 3 variants\n" in said
    for label in ("off", "serial x2", "streams x2"):
        assert f"left out of 2 cases: {label} auto: experts auto: stands for a backend, name those" in said
        assert f"left out of 2 cases: {label} torch graph: launch graph: nothing is captured without" in said
    assert said.endswith("6 runs, 12 left out\n")


@pytest.mark.parametrize("more", [*MEMCHECKED[1:], "experts: triton"])
def test_memcheck_fails_where_nothing_ran(
    memcheck: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    sweep = swept(tmp_path, f"{{engine: streams, split_factor: 2, {more}}}")
    assert memcheck["run"](sweep, None, "cpu") == memcheck["NOTHING"] != 0
    said = capsys.readouterr()
    assert said.out.endswith("0 runs, 6 left out\n")
    assert said.err == "nothing ran, so nothing was checked\n"


def test_memcheck_of_a_wrong_filter_is_one_line(
    memcheck: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = Namespace(plant=False, sweep=swept(tmp_path, "{split_factor: 2}"), filter="token=5")
    assert memcheck["under_watch"](asked) == memcheck["NOTHING"]
    assert capsys.readouterr().err.startswith("--filter: unknown key token, did you mean tokens?")


def test_memcheck_without_compute_sanitizer_says_where_it_looked() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "memcheck.py")],
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
    )
    if done.returncode != 2:
        pytest.skip("this machine has compute-sanitizer where toolkits put it")
    assert done.stderr.startswith("compute-sanitizer is neither on PATH nor in /usr/local/cuda/bin")
