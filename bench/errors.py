"""Errors a user caused or must know of, and the exit codes. One line each, no traceback."""

from enum import IntEnum


class Exit(IntEnum):
    """The contract people's scripts rely on."""

    DONE = 0
    REGRESSION = 1
    """Only ``bench compare BASE NEW --gate`` ends with it."""
    BAD_INPUT = 2
    UNDECIDED = 3
    """Of a gate; without one an undecided verdict is an answer, and exits 0."""
    NOT_COMPARABLE = 4
    FAILED_CASES = 5
    """The sweep ended, some cases failed; a skip is no failure."""
    INTERNAL = 70
    INTERRUPTED = 130


class BenchError(Exception):
    """What is wrong, where and what to do, in one line (or one line per problem).

    Args:
        problems: one line each, already naming file, key, what was found and what is allowed.
        code: the exit code it ends the program with.
    """

    def __init__(self, *problems: str, code: Exit = Exit.BAD_INPUT) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.code = code
