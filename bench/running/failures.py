"""Which variants of a run failed, told once each however many passes they failed in. Torch-free."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from bench.results import FAILURES, Status, Trial


@dataclass(frozen=True)
class Failure:
    """One variant of one case."""

    case_id: str
    variant: str
    """Its label."""
    status: Status
    """Of the first pass in which it failed, as is the reason."""
    reason: str | None
    passes: tuple[int, ...]
    """Indices of the passes in which it failed."""


def outcome_lines(ended: Iterable[tuple[str, Status, str | None]]) -> list[str]:
    """``serial x2 torch, streams x2 torch: oom: ...``: a line an outcome, of however many variants.

    Args:
        ended: label, status, reason of each.
    """
    labels: dict[tuple[Status, str | None], list[str]] = {}
    for label, status, reason in ended:
        labels.setdefault((status, reason), []).append(label)
    return [f"{', '.join(names)}: {status}: {reason}" for (status, reason), names in labels.items()]


def failures(trials: Iterable[Trial]) -> list[Failure]:
    """In the order of the Trials."""
    found: dict[tuple[str, str], Failure] = {}
    for trial in trials:
        timed = [(m, m.variant.label) for m in trial.measurements]
        for m, label in (*timed, *((m, f"{m.variant.label}, again") for m in trial.off_again)):
            if m.status in FAILURES:
                key = (trial.case_id, label)
                first = found.get(key, Failure(trial.case_id, label, m.status, m.reason, ()))
                found[key] = replace(first, passes=(*first.passes, trial.pass_index))
    return list(found.values())
