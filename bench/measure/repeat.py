"""Steady mode: a case that carries a doubt is timed once more, each variant alone until its own series is steady.

Turns cancel drift, and give every variant its neighbours' clocks, heat and caches; alone, each has only its own. Where
both modes say the same, the doubt changed nothing. Where not, the row says so, and the verdict stays that of turns.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench import units
from bench.deciding.stats import paired_logs
from bench.measure.peers import ALONE, Peers, slowest_of
from bench.measure.protocol import Announce, garbage_collector_paused, unsettled, until_steady
from bench.measure.steady import MEDIAN_ERROR, NOISE_TIMES, SD_PER_MAD
from bench.measure.stopping import known_within
from bench.measure.timer import Timer
from bench.settings import MeasureSettings

ALONE_UNTIL_STEADY = "alone until steady"
"""What begins, as it is announced."""
NEVER_STEADY = "steady mode did not settle"
"""The doubt of a variant that drifts alone, too."""
DISAGREES = "steady mode disagrees"
"""The doubt of a variant whose speed-up is another one alone."""


@dataclass(frozen=True)
class Alone:
    """One variant, timed by itself."""

    median_s: float
    """Of the later half of its series; of several ranks the slowest in each iteration."""
    error: float
    """Standard error of that median, as a fraction of it."""
    doubt: str | None
    """Why the series is not steady; None where it is."""

    @classmethod
    def of(cls, taken_s: Sequence[float]) -> "Alone":
        later = taken_s[len(taken_s) // 2 :]
        middle = median(later)
        sd = SD_PER_MAD * median(abs(value - middle) for value in later)
        error = MEDIAN_ERROR * sd / math.sqrt(len(later)) / middle if middle else 0.0
        return cls(middle, error, unsettled(taken_s, NEVER_STEADY))


def alone_until_steady(
    calls: Mapping[str, Callable[[], object]],
    timer: Timer,
    settings: MeasureSettings,
    announce: Announce,
    peers: Peers = ALONE,
    before_sample: Callable[[], object] = lambda: None,
) -> dict[str, Alone]:
    """Time one variant after the other, each as long as a warm-up may take and no longer.

    Args:
        calls: variant id -> one iteration.
        announce: called before each.
        before_sample: called before each sample, untimed.
    """
    found = {}
    with garbage_collector_paused():
        for variant_id, call in calls.items():
            announce(ALONE_UNTIL_STEADY, variant_id)
            taken_s = until_steady(call, timer, settings.warm_up_s, peers, before_sample)
            found[variant_id] = Alone.of(slowest_of(peers.gather(taken_s)))
    return found


def disagreement(
    off: Alone, on: Alone, off_s: Sequence[float], on_s: Sequence[float], same_within: float
) -> str | None:
    """Whether the speed-up alone lies beyond the interval of the speed-up by turns; in words, None where it does not.

    What neighbours do to a variant (0.3 to 0.8 %) is no disagreement: it must exceed ``same_within`` too.

    Args:
        off, on: T1 and the variant, each timed alone.
        off_s, on_s: the same two by turns, in measuring order.
    """
    if off.doubt or on.doubt:
        return None  # which the row says already
    logs = paired_logs(off_s, on_s)
    known = known_within(logs)
    by_turns, alone = median(logs), math.log(off.median_s / on.median_s)
    if known is None or abs(alone - by_turns) <= max(
        same_within, known + NOISE_TIMES * math.hypot(off.error, on.error)
    ):
        return None
    within = units.format_percent(known)
    return f"{DISAGREES}: {math.exp(alone):.3f}x alone, {math.exp(by_turns):.3f}x by turns (within {within})"
