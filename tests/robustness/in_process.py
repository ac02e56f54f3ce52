"""``bench`` in this process, told as a user sees it: exit code, output, errors."""

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from bench import cli
from bench.errors import Exit


@dataclass(frozen=True)
class Said:
    """What one command line came to."""

    code: int
    out: str
    err: str


def bench(*arguments: str | Path) -> Said:
    """Run a command line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    return Said(code, out.getvalue(), err.getvalue())


def refused(said: Said, *named: str | Path) -> None:
    """It ended with exit code 2 and a line that names where (one of ``named``) and what; no number, no traceback."""
    assert said.code == Exit.BAD_INPUT, said
    assert said.out == "", said
    lines = said.err.splitlines()
    assert lines, said
    assert any(line.startswith(f"error: {name}") for line in lines for name in named), said
    assert all(line.startswith("error: ") and line.isprintable() for line in lines), said


def no_accident(said: Said) -> None:
    """Whatever it came to, nothing broke: an answer, or a line that says why there is none."""
    assert said.code in (Exit.DONE, Exit.BAD_INPUT, Exit.NOT_COMPARABLE), said
    assert "Traceback" not in said.err, said
    if said.code != Exit.DONE:
        assert said.out == "", said
        assert said.err.splitlines()[-1].startswith("error: "), said
