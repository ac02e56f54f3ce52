"""How samples are taken: warm up until steady, then rounds in which all variants take turns, mirrored (A B C C B A).

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

from bench import units
from bench.measure.peers import ALONE, Peers, slowest_of
from bench.measure.steady import LEAST_WINDOW, drift
from bench.measure.stopping import StoppingRule
from bench.measure.timer import Timer
from bench.no_collecting import no_collecting
from bench.settings import MeasureSettings

MIN_WARM_UP_CALLS = 3
MAX_WARM_UP_CALLS = 2000
MOST_WARM_UP = 10
"""A warm-up that does not get steady ends after so many times the least it was asked to last."""
UNSETTLED = "warm-up did not settle"
"""The doubt of a variant that was timed all the same."""


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
    doubts: list[str] = field(default_factory=list)
    """In words: a warm-up that did not settle, a ratio that is not known as asked."""


@dataclass(frozen=True)
class WarmUp:
    """How an untimed series ended."""

    iteration_s: float
    """Median of its later half."""
    doubt: str | None
    """Why it is not steady; None where it is, and where no time was given to it."""


Announce = Callable[[str, str | None], None]
"""Told (what begins, variant id or None for all): lets a supervisor see progress."""


@contextmanager
def garbage_collector_paused() -> Iterator[None]:
    """A collection inside a sample would be counted as the variant's."""
    gc.collect()
    with no_collecting():
        yield


def warm_up(call: Callable[[], object], timer: Timer, warm_up_s: float, peers: Peers = ALONE) -> WarmUp:
    """Run untimed for ``warm_up_s`` and until the series is steady, by rank 0's clock.

    It ends unsteady, which is told, after MOST_WARM_UP times ``warm_up_s`` or MAX_WARM_UP_CALLS calls.
    """
    taken = until_steady(call, timer, warm_up_s, peers)
    doubt = unsettled(taken) if warm_up_s else None
    return WarmUp(median(taken[len(taken) // 2 :]), doubt)


def until_steady(
    call: Callable[[], object],
    timer: Timer,
    least_s: float,
    peers: Peers = ALONE,
    before_sample: Callable[[], object] = lambda: None,
) -> list[float]:
    """Seconds of each call, until they add up to ``least_s`` and drift no more, or :func:`warm_up`'s limits are met."""
    taken: list[float] = []

    def cold() -> bool:
        if len(taken) < MIN_WARM_UP_CALLS:
            return True
        spent_s = sum(taken)
        if spent_s >= MOST_WARM_UP * least_s or len(taken) >= MAX_WARM_UP_CALLS:
            return False
        # not after every call: the device idles meanwhile
        return spent_s < least_s or len(taken) % LEAST_WINDOW > 0 or not _steady(taken)

    while peers.first(cold()):
        before_sample()
        peers.align()
        taken.append(timer.time_s(call))
    return taken


def _steady(taken: Sequence[float]) -> bool:
    found = drift(taken)
    return found is not None and found.steady


def unsettled(taken: Sequence[float], doubt: str = UNSETTLED) -> str | None:
    """What to say, under the name of ``doubt``, of a series that ended like this; None where it was steady."""
    found = drift(taken)
    if found is None:
        return f"{doubt}: {len(taken)} calls are too few to tell"
    if not found.seen:
        return None
    return f"{doubt}: still drifting by {units.format_percent(found.change, signed=True)} after {len(taken)} calls"


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
    baselines: Mapping[str, str] | None = None,
    between_rounds: Callable[[], object] = lambda: None,
    before_sample: Callable[[], object] = lambda: None,
) -> dict[str, Samples]:
    """Time every variant of a case.

    Args:
        calls: variant id -> one iteration.
        announce: called before each variant's warm-up and before each round.
        pass_index: by how many places the order is rotated.
        peers: the ranks that run the same calls now.
        baselines: variant id -> id of the one it is compared with, which ``settings.stop_when`` is about.
        between_rounds: called before the first round, between rounds and after the last.
        before_sample: called before each, untimed; the timer waits for what it starts on the device.

    Returns:
        variant id -> its samples; all have as many of them, pairwise comparable by position.
    """
    warm_ups: dict[str, WarmUp] = {}
    for variant_id, call in calls.items():
        announce("warm-up", variant_id)
        warm_ups[variant_id] = warm_up(call, timer, settings.warm_up_s, peers)
    estimates_s = dict(zip(calls, peers.slowest([one.iteration_s for one in warm_ups.values()]), strict=True))
    repeats = repeats_for(estimates_s, settings.round_min_s)
    order = rotated(list(calls), pass_index)
    mirrored = order + order[::-1]
    rule = StoppingRule(settings, baselines or {})
    taken = {variant_id: Samples() for variant_id in calls}
    samples_s = {variant_id: one.samples_s for variant_id, one in taken.items()}
    rounds = place = 0
    with garbage_collector_paused():
        between_rounds()
        while peers.first(rule.goes_on(rounds, samples_s)):
            announce(rule.name(rounds), None)
            for _ in range(rule.blocks(repeats, place // len(order))):
                for variant_id in mirrored:
                    samples = taken[variant_id]
                    before_sample()
                    peers.align()
                    samples.samples_s.append(timer.time_s(calls[variant_id]))
                    samples.places.append(place)
                    samples.rounds.append(rounds)
                    place += 1
            rounds += 1
            between_rounds()
    for variant_id, samples in taken.items():
        doubts = (warm_ups[variant_id].doubt, rule.doubt(variant_id, samples_s))
        samples.doubts = [doubt for doubt in doubts if doubt is not None]
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
