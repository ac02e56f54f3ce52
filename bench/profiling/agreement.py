"""Whether two tools tell the same of one case: TBO off over on, and each stage's share of the span. Torch-free."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.profiling.kept import Kept, Pair
from moe_impl.options import Variant

ALIKE = 0.03
"""Two tools agree within it: of the ratio, and of a share's difference."""


@dataclass(frozen=True)
class Agreement:
    """Two profiles of one overlapped variant beside its T1."""

    tools: tuple[str, str]
    on: Variant
    off_on: tuple[float, float]
    """T1's span over T2o's, by each tool."""
    stage: str
    """Whose share differs most, and in which run."""
    role: str
    share: float
    """That difference, as a fraction of the span."""

    @property
    def apart(self) -> float:
        """Of the ratios, relative."""
        return abs(self.off_on[1] / self.off_on[0] - 1)

    @property
    def alike(self) -> bool:
        return max(self.apart, self.share) <= ALIKE


def agreements(profiles: Sequence[Kept]) -> list[Agreement]:
    """Every two profiles of one case by different tools, for each overlapped variant that both have with its T1."""
    return [
        _agreement((one.tool, other.tool), pair, same)
        for one, other in itertools.combinations(profiles, 2)
        if one.case.case_id == other.case.case_id and one.tool != other.tool
        for pair in one.pairs
        for same in other.pairs
        if same.on.variant == pair.on.variant and pair.off and same.off
    ]


def _agreement(tools: tuple[str, str], one: Pair, other: Pair) -> Agreement:
    there = {profiled.variant: profiled for profiled in other.all}
    differences = [
        (
            abs(profiled.analysis.stage_share(stage) - there[profiled.variant].analysis.stage_share(stage)),
            stage,
            profiled,
        )
        for profiled in one.all
        if profiled.variant in there
        for stage in sorted({*profiled.analysis.stages_ns, *there[profiled.variant].analysis.stages_ns})
    ]
    share, stage, where = max(differences, key=lambda difference: difference[0], default=(0.0, "", one.on))
    return Agreement(tools, one.on.variant, (_off_on(one), _off_on(other)), stage, where.variant.role, share)


def _off_on(pair: Pair) -> float:
    return pair.off.analysis.span_ns / pair.on.analysis.span_ns if pair.off else math.nan
