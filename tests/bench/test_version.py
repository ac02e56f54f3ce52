"""Which code this is, where it is a checkout, an installed package, or neither."""

import importlib.metadata
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import bench
from bench import version


def test_the_version_without_a_distribution_is_the_checkouts_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    project = tomllib.loads((version.ROOT / "pyproject.toml").read_text())["project"]
    assert version.version() == bench.__version__ == project["version"]
    assert project["name"] == version.DISTRIBUTION


def test_a_checkout_has_a_commit_and_is_dirty_once_a_tracked_file_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        named = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x", *arguments]
        return subprocess.run(named, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "tracked").write_text("1")
    git("add", "tracked")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("1")
    assert version.checkout(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "tracked").write_text("22")
    assert version.checkout(tmp_path) == {"commit": commit, "dirty": True}


def test_what_is_no_checkout_or_has_no_git_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert version.checkout(tmp_path) is None
    (tmp_path / ".git").mkdir()  # of no repository
    assert version.checkout(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert version.checkout(tmp_path) is None
    assert capfd.readouterr() == ("", "")


def test_the_digest_of_the_code_is_that_of_any_copy_and_changes_with_a_line_or_a_name(tmp_path: Path) -> None:
    for package in version.PACKAGES:
        shutil.copytree(version.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bench" / "notes.txt").write_text("no code")
    copy = version.source(tmp_path)
    assert copy == version.source()
    assert len(copy) == 16
    changed = tmp_path / "moe_impl" / "rows.py"
    changed.write_text(changed.read_text() + "\n")
    second = version.source(tmp_path)
    changed.rename(changed.with_name("lines.py"))
    assert len({copy, second, version.source(tmp_path)}) == 3
