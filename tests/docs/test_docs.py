"""Docs are executed: what they name exists, what they show is what the report says."""

import importlib.util
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from bench.cli import VERBS
from bench.config import load
from bench.measure.settings import MeasureSettings
from moe_impl.options import Variant

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SWEEP_FILE = (ROOT / "docs" / "SWEEP_FILE.md").read_text()
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_readme_lists_every_verb_and_no_other() -> None:
    table = README.split("## Verbs")[1].split("##")[0]
    assert re.findall(r"^\| `bench (\w+)", table, re.MULTILINE) == list(VERBS)


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
    yaml_name = {"round_min_s": "round_min", "warm_up_s": "warm_up", "case_limit_s": "case_limit"}
    assert [key for key in keys if key.startswith("measure.")] == [
        f"measure.{yaml_name.get(spec.name, spec.name)}" for spec in fields(MeasureSettings)
    ]
    assert {key for key in keys if key.startswith("variants.")} == {f"variants.{spec.name}" for spec in fields(Variant)}


def test_every_row_of_the_readme_table_is_a_row_of_the_report() -> None:
    report = (ROOT / re.search(r"\[report\]\(([^)]+)\)", README).group(1)).read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?x \[.+?\]) \| (\w+) \| (.+?x \[.+?\]) \| (\w+) \|$", README, re.MULTILINE)
    assert len(rows) >= 5
    for tokens, nvfp4, verdict, bf16, other in rows:
        for series, cells, said in (("streams x2 triton", nvfp4, verdict), ("streams x2 torch", bf16, other)):
            section = report.split(f"## {series}")[1].split("\n## ")[0]
            assert f"| {tokens} | {cells} | {said} |" in section


def test_make_help_lists_what_the_readme_calls() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert f"  {target} " in said, target
