"""Docs are executed: what they name exists, what they show is what the report says."""

import importlib.util
import re
import subprocess
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from plain_schedule import WHOLE

from bench import cli
from bench.cli import VERBS
from bench.config import load
from bench.errors import Exit
from bench.settings import MeasureSettings
from moe_impl.links import PACED_PRESETS
from moe_impl.options import DEFAULT_ORDER, Engine, Variant
from moe_impl.overlap import schedule
from moe_impl.shapes import PRESETS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SWEEP_FILE = (ROOT / "docs" / "SWEEP_FILE.md").read_text()
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_lists_every_verb_and_no_other() -> None:
    table = README.split("## Verbs")[1].split("##")[0]
    assert list(dict.fromkeys(re.findall(r"^\| `bench (\w+)", table, re.MULTILINE))) == list(VERBS)


def test_the_readme_lists_every_exit_code_that_a_verb_ends_with() -> None:
    codes = README.split("Exit codes: ")[1].split("\n\n")[0].split(". [")[0]
    listed = {int(code) for code in re.findall(r"(?:^|,)\s+(\d+) \w", f", {codes}")}
    assert listed == set(map(int, Exit)) | {cli.BROKEN_PIPE}


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(doc: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", doc.read_text()):
        assert (doc.parent / target).exists(), target


def test_every_module_that_the_readme_names_exists() -> None:
    for name in re.findall(r"`(bench(?:\.\w+)+)`", README):
        parent, _, attribute = name.rpartition(".")
        found = importlib.util.find_spec(name) if importlib.util.find_spec(parent).submodule_search_locations else None
        if found is None:  # a class in a module
            assert hasattr(importlib.import_module(parent), attribute), name


def test_the_example_of_the_sweep_file_loads(tmp_path: Path) -> None:
    example = tmp_path / "example.yaml"
    example.write_text(SWEEP_FILE.split("```yaml\n")[1].split("```")[0])
    assert load(example).question == "from how many tokens on does TBO pay?"


def test_the_key_table_is_complete() -> None:
    keys = re.findall(r"^\| `([\w.]+)`", SWEEP_FILE, re.MULTILINE)
    assert [key for key in keys if key.startswith("measure.")] == [
        f"measure.{spec.name.removesuffix('_s')}" for spec in fields(MeasureSettings)
    ]
    assert {key for key in keys if key.startswith("variants.")} == {f"variants.{spec.name}" for spec in fields(Variant)}


def test_every_sweep_file_of_ours_is_listed() -> None:
    listed = SWEEP_FILE.split("**Files that come with it**")[1]
    assert sorted(re.findall(r"`([\w-]+\.yaml)`", listed)) == sorted(p.name for p in (ROOT / "configs").glob("*.yaml"))


def test_every_preset_has_its_row_with_its_numbers() -> None:
    rows = [row for row in SWEEP_FILE.splitlines() if row.startswith("| `")]
    for name, model in PRESETS.items():
        [row] = [row for row in rows if f"`{name}`" in row]
        assert f"| {model.hidden_size}, {model.intermediate_size} |" in row
        assert str(model.num_experts) in row
        assert f", {model.top_k} |" in row
        assert ("shape only" in row) == (model.note is not None)
    for name, link in PACED_PRESETS.items():
        [row] = [row for row in rows if f"`{name}`" in row]
        dispatch, combine = (time.bandwidth_bytes_per_s / 1e9 for time in link.times)
        assert f"| {dispatch:.0f}, {combine:.0f} GB/s" in row
        assert ("node copies" in row) == (link.copies == "node")
        assert f"| {link.comm_sms}" in row
        assert ("| assumed |" in row) == ("alpha assumed" in link.source)


SERIES = (
    ("streams x2 triton, nvfp4 ·", "W4A4"),
    ("streams x2 triton, nvfp4-w4a16 ·", "NVFP4 weights (W4A16)"),
    ("streams x2 torch, fp8 ·", "FP8"),
    ("streams x2 torch, bf16 ·", "bf16"),
)
"""Sections of the report that the README's table quotes, column by column, and what its text calls them."""


def quoted_section(series: str) -> str:
    report = (ROOT / re.search(r"\[report\]\(([^)]+)\)", README).group(1)).read_text()
    return report.split(f"## {series}")[1].split("\n## ")[0]


def test_every_cell_of_the_readme_table_is_a_row_of_the_report_with_its_doubt() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+x \[.+\] \w+.*) \|$", README, re.MULTILINE)
    assert len(rows) >= 5
    for tokens, cells in rows:
        for (series, _), cell in zip(SERIES, cells.split(" | "), strict=True):
            section = quoted_section(series)
            speedup, verdict, doubt = re.fullmatch(r"(\S+x \[.+\]) (\w+)( \*)?", cell).groups()
            assert re.search(rf"^\| {tokens} \| \S+ \| \S+ \| {re.escape(speedup)} \| {verdict} \|", section, re.M)
            said = re.search(r"^Doubt at (.+): stage pass perturbed", section, re.M)
            of_all = said is not None and said.group(1).startswith("all ")
            doubted = of_all or (said is not None and tokens in re.findall(r"\d+", said.group(1)))
            assert bool(doubt) == doubted, (series, tokens)


def test_every_other_speedup_of_the_readme_stands_in_a_report_it_links() -> None:
    text = README.split("Also measured", 1)[1].split("## Verbs")[0]
    reports = [(ROOT / path).read_text() for path in re.findall(r"\[report\]\(([^)]+)\)", text)]
    speedups = re.findall(r"\d\.\d{3}x \[\d\.\d{3}, \d\.\d{3}\]", text)
    assert len(speedups) >= 8
    for speedup in speedups:
        assert any(speedup in report for report in reports), speedup


def test_the_readme_repeats_the_break_evens() -> None:
    text = " ".join(README.split())
    for series, name in SERIES:
        section = quoted_section(series)
        first = re.search(r"^Break-even between \d+ and (\d+) tokens", section, re.MULTILINE).group(1)
        crossing = re.search(r"crosses 1 at about (\d+) \(interpolated", section).group(1)
        assert f"{first} with {name}" in text or f"{first} on with {name}" in text, name
        assert f"{crossing} with {name}" in text, name


def test_the_engines_page_shows_what_the_schedule_draws() -> None:
    page = (ROOT / "docs" / "ENGINES.md").read_text()
    shown = re.findall(r"^## (\w+), (\w+)\n\n```\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    runs = product(get_args(Engine), schedule.ORDERS)
    expected = [run for run in runs if run[0] != "serial" or run[1] in DEFAULT_ORDER.values()]
    assert sorted((engine, order) for engine, order, _ in shown) == sorted(expected)
    for engine, order, drawing in shown:
        drawn = schedule.build(schedule.chain(WHOLE), 1, 2, order).drawn(engine)
        assert drawing == drawn, f"{engine}, {order}"


def test_make_help_lists_what_the_readme_calls() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert f"  {target} " in said, target
