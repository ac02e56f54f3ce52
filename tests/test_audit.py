"""``make audit`` passes only where packages were audited and nothing was found."""

import runpy
from pathlib import Path
from typing import Any

import pytest

verdict = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "audit.py"))["verdict"]
FINE: dict[str, Any] = {"name": "click", "version": "8.1", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
FOUND = [{"id": "CVE-1", "fix_versions": ["8.2", "8.3"]}, {"id": "CVE-2", "fix_versions": []}]


@pytest.mark.parametrize("dependencies", [[], [UNKNOWN], [UNKNOWN, UNKNOWN]])
def test_nothing_audited_is_no_clean_answer(dependencies: list[dict[str, Any]]) -> None:
    assert verdict(dependencies) == [
        f"none of {len(dependencies)} packages was audited: the index has no vulnerability data for them"
    ]


def test_what_was_audited_without_a_finding_is_clean_and_each_finding_is_told() -> None:
    assert verdict([FINE, UNKNOWN]) == []
    assert verdict([FINE | {"vulns": FOUND}]) == [
        "click 8.1: CVE-1, fixed in 8.2, 8.3",
        "click 8.1: CVE-2, fixed in no release",
    ]
