"""What tests of verbs share: the command line in this process."""

import shlex
from collections.abc import Callable

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
