"""docs/READING.md tells every doubt and every label that a row can carry, and no doubt that none can."""

import re
from pathlib import Path

import pytest
from synthetic import CPU, H100

from bench.measure import retention
from bench.pass_runner import COLD
from bench.render.limits import OF_LABELS
from moe_impl import support
from moe_impl.links import COLLECTIVE, LOCAL
from moe_impl.options import Attention, SkewedRouting, Variant, Workload
from moe_impl.shapes import PRESETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "READING.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "bench").rglob("*.py")))
CONSTANTS = re.findall(r'^[A-Z_]+ = "(.+)"\n"""The doubt of ', SOURCES, re.MULTILINE)
"""What the code calls a doubt."""
NAMED_BY_FIGURES = ("retains N bytes after a step,", "FACT: X in BASE, Y in NEW")
"""Doubts that have no constant."""
ATTENDED = Workload(PRESETS["deepseek-v3"], 8, 1, 64, "bf16", attention=Attention(4096))
SKEWED = Workload(PRESETS["gpt-oss-20b"], 8, 1, 64, "bf16", routing=SkewedRouting("zipf", 1.0))


def first_cells(topic: str) -> list[str]:
    """Of a topic's table, without the dots that stand for figures."""
    table = PAGE.split(f"**{topic}.**")[1].split("| --- |\n")[1].split("\n\n")[0]
    return [cell.split(" ..")[0] for cell in re.findall(r"^\| (.+?) \|", table, re.MULTILINE)]


def test_the_table_of_doubts_has_what_the_code_calls_one_and_no_other() -> None:
    assert len(CONSTANTS) >= 9
    assert sorted(first_cells("Doubts")) == sorted([*CONSTANTS, *NAMED_BY_FIGURES])


def test_the_doubt_of_retained_bytes_is_worded_as_it_is_said() -> None:
    said = re.sub(r"\d+", "N", retention.said(512, {"chunks.py:7 pin": 512}))
    assert any(said.startswith(cell) for cell in first_cells("Doubts"))


def test_every_doubt_of_a_committed_report_has_its_row() -> None:
    reports = "\n".join(path.read_text() for path in (ROOT / "reports").rglob("report.md"))
    shown = set(re.findall(r"^Doubt at [^:]+: (.+)\.$", reports, re.MULTILINE))
    assert shown
    assert [doubt for doubt in shown if not doubt.startswith(tuple(first_cells("Doubts")))] == []


LABELS = [
    *(value for name, value in vars(support).items() if name.isupper() and isinstance(value, str)),
    *support.ALL_TO_ALL.values(),
    *OF_LABELS,
    COLD,
    "experts auto: NAME",
    *support.labels(ATTENDED, LOCAL, Variant("torch"), CPU),
    *support.labels(SKEWED, LOCAL, Variant("torch"), CPU),
    *support.labels(SKEWED, COLLECTIVE, Variant("torch"), H100),
]
LABELS.remove(support.MEMORY_NEED)  # a refusal's


@pytest.mark.parametrize("label", dict.fromkeys(LABELS))
def test_every_label_is_told(label: str) -> None:
    assert label.split(":")[0] in "\n".join(first_cells("Labels"))
