"""What tests of verbs share: the command line in this process, on a machine that a script stands for, or on files."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from small_sweep import Script

from bench import cli


@pytest.fixture
def bench(script: Script, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    """Runs a line, on the machine and with the worker that the file's own ``script`` stands for."""

    def call(line: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        code = cli.main(shlex.split(line))
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a verb that measures nothing, on a terminal so many columns wide."""

    def run(*arguments: str | Path, columns: int = 200) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        monkeypatch.setenv("COLUMNS", str(columns))
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run
