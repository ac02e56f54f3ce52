"""How samples are taken: warm up, then rounds in which all variants take turns, mirrored (A B C C B A).

Each pass begins its order with another variant: what a variant's neighbours do to it (0.3 to 0.8 % were measured) is
then part of the spread between passes, which the interval sees, and no bias that all passes share.

Several ranks take each sample together: aligned before it, and a sample is the slowest rank's.
"""

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

from bench.measure.peers import ALONE, Peers, slowest_of
from bench.measure.settings import MeasureSettings
from bench.measure.timer import Timer

MIN_WARM_UP_CALLS = 3
MAX_WARM_UP_CALLS = 2000


@dataclass
class Samples:
    """One variant's samples in measuring order."""

    samples_s: list[float] = field(default_factory=list)
    """Of several ranks the slowest in each iteration."""
    places: list[int] = field(default_factory=list)
    """Each sample's place among all samples of the case in this pass."""
    rounds: list[int] = field(default_factory=list)
    rank_skew: float | None = None
    """Median over iterations of (slowest rank - fastest) / slowest; None for one rank."""


Announce = Callable[[str, str | None], None]
"""Told (what begins, variant id or None for all): lets a supervisor see progress."""


@contextmanager
def garbage_collector_paused() -> Iterator[None]:
    """A collection inside a sample would be counted as the variant's."""
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def warm_up(call: Callable[[], object], timer: Timer, warm_up_s: float, peers: Peers = ALONE) -> float:
    """Run untimed until ``warm_up_s`` have passed by rank 0's clock; the median of the later half, in seconds."""
    taken: list[float] = []

    def cold() -> bool:
        return len(taken) < MIN_WARM_UP_CALLS or (sum(taken) < warm_up_s and len(taken) < MAX_WARM_UP_CALLS)

    while peers.first(cold()):
        peers.align()
        taken.append(timer.time_s(call))
    return median(taken[len(taken) // 2 :])


def repeats_for(estimates_s: Mapping[str, float], round_min_s: float) -> int:
    """How often a round repeats its mirrored order to last at least ``round_min_s``."""
    return max(1, math.ceil(round_min_s / (2 * sum(estimates_s.values()))))


def rotated(order: Sequence[str], places: int) -> list[str]:
    """The same cycle, begun ``places`` further on."""
    begin = places % len(order) if order else 0
    return [*order[begin:], *order[:begin]]


def measure(
    calls: Mapping[str, Callable[[], object]],
    timer: Timer,
    settings: MeasureSettings,
    announce: Announce,
    pass_index: int = 0,
    peers: Peers = ALONE,
) -> dict[str, Samples]:
    """Time every variant of a case.

    Args:
        calls: variant id -> one iteration.
        announce: called before each variant's warm-up and before each round.
        pass_index: by how many places the order is rotated.
        peers: the ranks that run the same calls now.

    Returns:
        variant id -> its samples; each has 2 * repeats * rounds of them, pairwise comparable by position.
    """
    estimates_s: dict[str, float] = {}
    for variant_id, call in calls.items():
        announce("warm-up", variant_id)
        [estimates_s[variant_id]] = peers.slowest([warm_up(call, timer, settings.warm_up_s, peers)])
    repeats = repeats_for(estimates_s, settings.round_min_s)
    order = rotated(list(calls), pass_index)
    mirrored = order + order[::-1]
    taken = {variant_id: Samples() for variant_id in calls}
    place = 0
    with garbage_collector_paused():
        for round_index in range(settings.rounds):
            announce(f"round {round_index + 1} of {settings.rounds}", None)
            for _ in range(repeats):
                for variant_id in mirrored:
                    samples = taken[variant_id]
                    peers.align()
                    samples.samples_s.append(timer.time_s(calls[variant_id]))
                    samples.places.append(place)
                    samples.rounds.append(round_index)
                    place += 1
    for samples in taken.values():
        of_ranks = peers.gather(samples.samples_s)
        samples.samples_s = slowest_of(of_ranks)
        samples.rank_skew = rank_skew(of_ranks)
    return taken


def rank_skew(of_ranks: Sequence[Sequence[float]]) -> float | None:
    """By what share of an iteration its fastest rank was done before its slowest, as a rule; None for one rank."""
    if len(of_ranks) == 1:
        return None
    iterations = zip(*of_ranks, strict=True)
    return float(median(1 - min(taken_s) / max(taken_s) for taken_s in iterations))
