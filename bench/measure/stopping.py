"""When a pass has taken enough samples of a case: after a fixed number of rounds, or once its ratios are known.

The rule looks at how wide a ratio's interval is, never at where it lies: stopping once an interval clears a threshold
would turn noise into verdicts. It concerns one pass; a verdict hangs on how passes differ. Torch-free.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench import units
from bench.deciding.stats import BLOCK_SAMPLES, paired_logs
from bench.settings import MeasureSettings

CASE_SHARE = 0.5
"""Of ``case_limit`` that samples may take: build, checks and warm-up need the rest, and a late case loses all."""
ONE_IN = 40
"""The median lies below the interval, and above it, at most so rarely: together a 95 % interval."""
NOT_KNOWN = "ratio to T1 not known as asked"
"""The doubt of a variant that was stopped before."""


def known_within(logs: Sequence[float]) -> float | None:
    """How far the interval of the logs' median reaches from it at most; None with too few logs for an interval.

    The interval lies between two order statistics (the sign test's), so it assumes no distribution: a pass's ratio is
    the median of its logs too.
    """
    outside, rank = 1, 0  # in how many of the 2^n patterns of signs at most ``rank`` logs lie below the median
    while outside * ONE_IN <= 2 ** len(logs):
        rank += 1
        outside += math.comb(len(logs), rank)
    if rank == 0:
        return None
    ordered, middle = sorted(logs), median(logs)
    return max(middle - ordered[rank - 1], ordered[-rank] - middle)


@dataclass(frozen=True)
class StoppingRule:
    """Of one case in one pass."""

    settings: MeasureSettings
    baselines: Mapping[str, str] = field(default_factory=dict)
    """Key of a variant -> key of the one it is compared with."""

    def name(self, round_index: int) -> str:
        """``round 3 of 6``; ``round 3`` where nobody knows how many there will be."""
        said = f"round {round_index + 1}"
        return f"{said} of {self.settings.rounds}" if self.settings.stop_when is None else said

    def blocks(self, wanted: int, num_samples: int) -> int:
        """Mirrored orders in the next round: as many as wanted, but no variant gets more samples than allowed."""
        if self.settings.stop_when is None:
            return wanted
        return min(wanted, (self.settings.samples.max - num_samples) // BLOCK_SAMPLES)

    def goes_on(self, rounds: int, samples_s: Mapping[str, Sequence[float]]) -> bool:
        """Whether one more round is due, given the samples of each variant; each has as many."""
        wanted, limits = self.settings.stop_when, self.settings.samples
        if wanted is None:
            return rounds < self.settings.rounds
        num_samples = min(map(len, samples_s.values()))
        if num_samples + BLOCK_SAMPLES > limits.max:
            return False
        if num_samples < limits.min:
            return True
        spent_s = sum(map(sum, samples_s.values()))
        if spent_s * (1 + 1 / rounds) > CASE_SHARE * self.settings.case_limit_s:
            return False
        return any(self.within(key, samples_s) > wanted for key in self.baselines)

    def within(self, key: str, samples_s: Mapping[str, Sequence[float]]) -> float:
        """How far from its median this variant's ratio may lie; infinity with too few samples."""
        known = known_within(paired_logs(samples_s[self.baselines[key]], samples_s[key]))
        return math.inf if known is None else known

    def doubt(self, key: str, samples_s: Mapping[str, Sequence[float]]) -> str | None:
        """What to say of a variant whose ratio was not known when its pass stopped; None where it was."""
        wanted = self.settings.stop_when
        if wanted is None or key not in self.baselines:
            return None
        within = self.within(key, samples_s)
        if within <= wanted:
            return None
        known = f"within {units.format_percent(within)}" if math.isfinite(within) else "no interval"
        asked = units.format_percent(wanted)
        return f"{NOT_KNOWN}: {known} after {len(samples_s[key])} samples, {asked} was asked"
