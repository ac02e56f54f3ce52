"""An overlapped variant of a case and what it is held against: the speed-up, before anything is said of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.deciding import join, stats
from bench.deciding.join import Passes, Runs
from bench.deciding.stats import Estimate
from bench.lazy import lazy
from bench.results import Measurement
from moe_impl.options import Variant


@dataclass(frozen=True)
class Sides:
    """A T2o's passes beside those of its T1 and T2s; empty where the case does not hold them."""

    off: Runs
    """T1."""
    serial: Runs
    """T2s."""
    on: Runs
    """T2o."""

    @lazy
    def common(self) -> list[int]:
        """Passes that timed both T1 and T2o."""
        return sorted(self.off.timed.keys() & self.on.timed.keys())

    @lazy
    def estimate(self) -> Estimate | None:
        """The speed-up over the passes that timed both; None where there is none.

        Raises:
            ValueError: T1 and T2o do not hold the same mirrored blocks.
        """
        return speedup(self.off.timed, self.on.timed, self.common)


def overlapped(passes: Passes) -> list[tuple[Variant, Sides]]:
    """Every T2o of a case, timed or not, in order of first appearance."""
    known, none = passes.by_variant, Runs()
    return [
        (variant, Sides(known.get(join.unsplit(variant), none), known.get(join.split_serial(variant), none), on))
        for variant, on in known.items()
        if variant.role == "T2o"
    ]


def speedup(off: Mapping[int, Measurement], on: Mapping[int, Measurement], common: Sequence[int]) -> Estimate | None:
    """Of what was timed in these passes, on both sides; None without any.

    Raises:
        ValueError: the sides do not hold the same mirrored blocks.
    """
    logs = [stats.paired_logs(off[p].samples_s, on[p].samples_s) for p in common]
    return stats.estimate(logs) if logs else None
