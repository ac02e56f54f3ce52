"""What a gate on two runs ends with. A regression is the only way to exit code 1."""

from collections.abc import Iterator

from bench.deciding.changes import Between
from bench.deciding.compare import Verdict
from bench.errors import Exit


def gate(between: Between, *, alike: bool, absolute: bool) -> Exit:
    """Not comparable, as is a gate that compares nothing, beats a regression, that beats undecided.

    Args:
        between: the comparison.
        alike: whether the two runs are comparable at all.
        absolute: whether times may end it too, not only TBO's speed-up.
    """
    verdicts = set(_verdicts(between, absolute))
    if not alike or between.not_compared or not between.changes:
        return Exit.NOT_COMPARABLE
    if Verdict.SLOWER in verdicts:
        return Exit.REGRESSION
    return Exit.UNDECIDED if Verdict.UNDECIDED in verdicts else Exit.DONE


def _verdicts(between: Between, absolute: bool) -> Iterator[Verdict]:
    for row in between.changes:
        yield row.verdict
        if absolute:
            yield from (time.verdict for time in row.times)
