"""Sweep files and link tables that were damaged, or written to do harm: refused with place and reason, and at once."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import damage
import pytest
import synthetic
from hypothesis import example, given
from in_process import Said, bench, no_accident, refused

from bench.running import probe
from bench.running.messages import Ready

SWEEP = """\
# Question: does a damaged file say so?
schema: 1
case:
  model: {hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 2}
  ep_size: 4
  tokens: [16, 64]
  precision: [bf16, nvfp4]
  routing: [model, {zipf: 1.0}]
  link: [local, {paced: {alpha: 15 us, bandwidth: {dispatch: 150 GB/s, combine: {bf16: 1 GB/s}}, comm_sms: 4}}]
variants:
  - {engine: [streams, threads], split_factor: [2, 4], receive: worst_case}
  - {split: {policy: ratio, ratio: 0.4}, max_tokens_per_rank: 64}
measure: {passes: 2, rounds: 3, round_min: 10 ms, decide_beyond: 0.2 %, case_limit: 60 s}
"""
TOKENS = (
    "&a", "*a", "<<", "!!python/object:os.system", "!!binary", "!x", "{", "[", "]", "}", "? ", "| ", "> ", "- ", ": ",
    "#", "1e308 s", "1e-400 s", ".nan", "-.inf", "nan s", "9" * 5000, "2147483647", "-1", "0", "0x10", "1_000", "true",
    "null", "~", "²", "\x00", "\x1b[31m", "\u2028", "\ufeff", "\t", "\n", "\n\n  ", "'", '"', "---\n", "...\n",
    "%YAML 9.9\n", "deepseek-v3", "h800-nvlink-ep8", "{table: x.csv}", "2026-01-01", "fp8", "exact", "balanced",
)  # fmt: skip
TABLE = """\
direction,dtype,bytes,seconds
dispatch,bf16,1024,1e-5
dispatch,bf16,1048576,2e-5
combine,bf16,1024,1e-5
combine,bf16,1048576,2e-5
"""
CELLS = (
    "nan", "inf", "-1", "0", "1e308", "1e-320", "9" * 30, "", ",", '"', "'", "\n", "\x00", "dispatch", "combine",
    "nvfp4", "²",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def on_a_known_machine() -> Iterator[None]:
    """``plan`` asks no worker: these tests are about files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "probe", lambda device: Ready(synthetic.CPU, {}))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "sweep.yaml").write_text(SWEEP)
    (folder / "table.yaml").write_text(SWEEP.replace("[local, {paced", "[{table: t.csv}, {paced"))
    (folder / "t.csv").write_text(TABLE)
    for name in ("sweep.yaml", "table.yaml"):
        assert bench("plan", folder / name).code == 0, "whole, it is read"
    return folder


def answered(said: Said, path: Path) -> None:
    """A plan, or a refusal that names the file; no plan of something that is no number."""
    no_accident(said)
    if said.code == 0:
        assert "nan" not in said.out
        assert " inf" not in said.out
    else:
        assert str(path.parent) in said.err or said.err.startswith("error: the sweep has "), said


@example(data=SWEEP.replace("case_limit: 60 s", "case_limit\n\n   60 s").encode())  # a key of two lines
@given(data=damage.damaged_text(SWEEP, TOKENS).map(str.encode) | damage.damaged_bytes(SWEEP.encode()))
def test_a_damaged_sweep_file(folder: Path, data: bytes) -> None:
    path = folder / "sweep.yaml"
    path.write_bytes(data)
    answered(bench("plan", path), path)


@given(data=damage.damaged_text(TABLE, CELLS).map(str.encode) | damage.damaged_bytes(TABLE.encode()))
def test_a_damaged_link_table(folder: Path, data: bytes) -> None:
    (folder / "t.csv").write_bytes(data)
    answered(bench("plan", folder / "table.yaml"), folder / "t.csv")


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n" for before, after in pairwise("abcdefghi")
)
NUMBERS = "[" + ", ".join(map(str, range(1, 217))) + "]"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[16, 64]", "&a [16, *a]", "an anchor that contains itself"),
        ("schema: 1", "schema: 1\n" + LAUGHS, "unknown key"),
        ("schema: 1", "schema: !!python/object/apply:os.system ['true']", "tags are not allowed"),
        ("schema: 1", "schema: 1\n? {a: 1}\n: 2", "a key must be text, found a mapping"),
        ("schema: 1", "schema: 1\n1: 2", "a key must be text"),
        ("schema: 1", "schema: 1\nx: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("schema: 1", "schema: 1\nx: " + "{a: " * 5000 + "}" * 5000, "nested too deeply"),
        (
            "tokens: [16, 64]",
            f"tokens: {NUMBERS}\n  layers: {NUMBERS}\n  seed: {NUMBERS}",
            "at most 100,000 are allowed",
        ),
        ("15 us", "1e308 s", "case.link.paced.alpha"),
        ("15 us", "nan s", "case.link.paced.alpha"),
        ("15 us", ".nan", "case.link.paced.alpha"),
        ("15 us", "-1 us", "case.link.paced.alpha"),
        ("150 GB/s", "1e308 GB/s", "paced.bandwidth.dispatch"),
        ("150 GB/s", "1e300 B/s", "paced.bandwidth.dispatch"),
        ("150 GB/s", "1e-300 B/s", "paced.bandwidth.dispatch"),
        ("60 s", "1e308 s", "measure.case_limit"),
        ("60 s", "1e300 s", "measure.case_limit"),
        ("10 ms", "1e308 min", "measure.round_min"),
        ("0.2 %", "nan %", "measure.decide_beyond"),
        ("zipf: 1.0", "zipf: .inf", "case.routing"),
        ("ratio: 0.4", "ratio: 1e308", "split.ratio"),
    ],
)
def test_what_would_do_harm_is_refused_at_once(folder: Path, old: str, new: str, said: str) -> None:
    path = folder / "harm.yaml"
    assert old in SWEEP
    path.write_text(SWEEP.replace(old, new))
    began = time.perf_counter()
    answer = bench("plan", path)
    assert time.perf_counter() - began < 20
    assert answer.code == 2, answer
    assert answer.out == ""
    assert said in answer.err
    assert answer.err.startswith("error: ")


def test_a_number_out_of_range_in_a_link_table_is_refused(folder: Path) -> None:
    for cell in ("1e308", "1e300", "nan", "inf", "-1e-5", "0"):
        (folder / "t.csv").write_text(TABLE.replace("1e-5", cell, 1))
        refused(bench("plan", folder / "table.yaml"), folder / "t.csv:2")
