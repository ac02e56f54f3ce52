"""docs/LITERATURE.md says of our setting what the sweep files say, and cells without a run say that there is none."""

import re
from pathlib import Path

import pytest

from bench.cases import expand
from bench.config import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "LITERATURE.md").read_text()
CONFIGS = tuple(sorted((ROOT / "configs").glob("literature-*.yaml")))


def section(config: Path) -> str:
    """Of the page: the one that names the file."""
    (found,) = [part for part in PAGE.split("\n## ") if f"bench sweep configs/{config.name}" in part]
    return found


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_setting_that_the_page_names_is_the_files(config: Path) -> None:
    settings = re.findall(r"`(\w+: [^`]+)`", section(config))
    text = config.read_text()
    assert len(settings) > 8
    assert [setting for setting in settings if setting not in text] == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_token_count_has_a_row(config: Path) -> None:
    tokens = {case.workload.tokens for case in expand(load(config))}
    assert {int(row) for row in re.findall(r"^\| (\d+) \|", section(config), re.MULTILINE)} == tokens


def test_both_files_have_a_section() -> None:
    assert [path.stem for path in CONFIGS] == ["literature-decode", "literature-prefill"]
