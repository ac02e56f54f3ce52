"""``bench analyze``: a stranger's trace gets the same metrics, and a wrong rule or file one line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[1] / "data" / "nsight_sample.sqlite"
RULES = r"""
ranges:
  - '^moe_tbo/iter(?P<iteration>\d+)$'
  - '^moe_tbo/mb(?P<ubatch>\d+)$'
  - '^moe_tbo/(?P<stage>dispatch|gemm\d|silu_mul|combine)$'
"""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.cli", "analyze", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path / "rules.yaml"


def test_a_real_export_with_rules(rules: Path) -> None:
    done = analyze(str(SAMPLE), "--map", str(rules))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Not overlapping: 0 % of communication runs beside compute.\n")
    assert "6 iterations" in done.stdout
    assert "Doubt" not in done.stdout
    (data,) = json.loads(analyze(str(SAMPLE), "--map", str(rules), "--json").stdout)
    assert [m["work"] for m in data["iterations"]] == [20] * 6
    assert sum(m["stages_ns"]["combine"] for m in data["iterations"]) <= 4928649, "unions, never more than the sum"
    assert data["overlap"] == 0.0


def test_runs_are_set_apart_and_shares_say_of_what(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("ranges: ['^moe_tbo/mb(?P<run>[0-9]+)$']\n")
    done = analyze(str(SAMPLE), "--map", str(tmp_path / "rules.yaml"))
    assert done.returncode == 0, done.stderr
    first, second = re.split(r"^(?=(?:Not o|O)verlapping: |No communication)", done.stdout, flags=re.MULTILINE)[1:]
    assert first.endswith("\n\n"), "a blank line between the two"
    assert not second.endswith("\n\n")
    for told in (first, second):
        assert "\nShare of an iteration, and its time\n" in told
        assert "on 2 streams;" in " ".join(told.split())
    assert "on 1 stream;" in " ".join(analyze(str(SAMPLE.with_name("trace_off.json.gz"))).stdout.split())


def test_without_rules_copies_are_communication_and_it_says_what_it_does_not_know() -> None:
    done = analyze(str(SAMPLE))
    assert done.returncode == 0, done.stderr
    assert "Doubt: no range names an iteration: the whole trace counts as one" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ranges: ['(']", "rules.yaml:1:10: ranges[0]: found '(', no regular expression: missing )"),
        ("ranges: ['(?P<stge>x)']", "ranges[0]: found group stge, expected one of (?P<stage>..), (?P<run>..)"),
        ("ranges: [x]", "ranges[0]: found no named group, expected one of"),
        ("kernel: []", "unknown key kernel, did you mean kernels? allowed: ranges, stages, streams, kernels"),
        ("kernels: [{match: x, lane: com}]", "kernels[0].lane: found com, did you mean comm? allowed: compute, comm"),
        ("kernels: {a: b}", "kernels: found a mapping, expected a list"),
        ("streams: {seven: comm}", "streams: found stream seven, expected its number"),
        ("streams: [7]", "streams: found a list, expected a mapping to compute or comm"),
    ],
)
def test_a_wrong_rule_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rules.yaml").write_text(text + "\n")
    done = analyze(str(SAMPLE), "--map", str(tmp_path / "rules.yaml"))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_report_that_was_not_exported_says_how(tmp_path: Path) -> None:
    (tmp_path / "rep.nsys-rep").touch()
    done = analyze(str(tmp_path / "rep.nsys-rep"))
    assert done.returncode == 2
    assert "export it first: nsys export --type sqlite" in done.stderr
    assert analyze(str(tmp_path / "none.json")).returncode == 2
