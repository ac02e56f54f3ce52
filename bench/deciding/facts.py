"""What was recorded around two runs: whether they may be compared at all, and in what else they differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.results import Trial


@dataclass(frozen=True)
class Differing:
    """One fact in which two runs differ; None = unknown there."""

    name: str
    base: Any
    new: Any


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts under dotted names: ``gpu.name``."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def differing(base: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Differing, ...]:
    """The facts that differ, by dotted name; one that only one run recorded is unknown in the other."""
    one, other = flat(base), flat(new)
    names = dict.fromkeys((*one, *other))
    return tuple(Differing(n, one.get(n), other.get(n)) for n in names if one.get(n) != other.get(n))


def unlike(base: Sequence[Trial], new: Sequence[Trial]) -> tuple[Differing, ...]:
    """What makes two runs' times incomparable: another machine, ranks, timer or launch mode.

    ``machine`` is the GPU's name (the processor's on a CPU), never its architecture: an H100 and an H200 share that.
    """
    one, other = _decisive(base), _decisive(new)
    found = [Differing(name, *_said(one[name], other[name])) for name in one if one[name] != other[name]]
    launch = _launches(base), _launches(new)
    # one mode in common leaves rows to compare; those of the other have no counterpart, which is told of each
    return (*found, *([] if launch[0] & launch[1] else [Differing("launch mode", *_said(*launch))]))


def _decisive(trials: Sequence[Trial]) -> dict[str, frozenset[str]]:
    return {
        "device": frozenset(trial.machine.device for trial in trials),
        "machine": frozenset(trial.machine.name for trial in trials),
        "ranks": frozenset(str(trial.machine.ranks) for trial in trials),
        "timer": frozenset(trial.timer for trial in trials),
    }


def _launches(trials: Iterable[Trial]) -> frozenset[str]:
    return frozenset(m.variant.launch for trial in trials for m in trial.measurements)


def _said(base: Iterable[str], new: Iterable[str]) -> tuple[str, str]:
    return " and ".join(sorted(base)), " and ".join(sorted(new))
