"""Is a verdict as rare, and an effect as surely found, as the rule claims? Simulated, with the rule's own code.

The seed comes from BENCH_SEED. A test fails only where so bad a count would come from a rule that keeps its promise
once in a thousand runs.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from noises import Draw, Logs, hiccups, power_states, wander, white
from scipy.stats import binom

from bench.deciding import stats
from bench.deciding.compare import Verdict, decide
from bench.deciding.stats import Estimate
from bench.settings import MeasureSettings

SEED = int(os.environ.get("BENCH_SEED", "20260102"))
MEASURE = MeasureSettings()
TRIALS = 400
BLOCKS = 12
"""Mirrored blocks of a pass: two a round, six rounds."""
FALSE, FOUND = 0.01, 0.95
"""Promised: at most so many false verdicts, at least so many of the effects found."""
MOST_FALSE = int(binom.ppf(0.999, TRIALS, FALSE))
LEAST_FOUND = int(binom.ppf(0.001, TRIALS, FOUND))
CLAIMS = (Verdict.FASTER, Verdict.SLOWER)


def processes(draw: Draw, shape: tuple[int, ...]) -> Logs:
    """Each process moves off against on by 0.5 %: memory layout, link order, which SMs."""
    moved = draw.normal(0, 0.005, shape[:-1])
    return white(draw, shape) + moved[..., None] * OFF


OFF = np.tile([1.0, 0.0, 0.0, 1.0], BLOCKS)
"""[4 BLOCKS] 1 where a sample is off's: off on on off."""


@dataclass(frozen=True)
class Noise:
    name: str
    draw: Callable[[Draw, tuple[int, ...]], Logs]
    passes: int = 5
    effect: float = 0.01
    """True speed-up, less 1, that is found."""


NOISES = (
    Noise("white", white),
    Noise("wander", wander),
    Noise("power states", power_states),
    Noise("processes", processes, passes=8),
    Noise("hiccups", hiccups, effect=0.03),
)
by_name = pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)


def runs(noise: Noise, effect: float, trials: int = TRIALS, passes: int | None = None) -> Iterator[Estimate]:
    """What the rule makes of the samples of runs whose true speed-up is 1 + ``effect``."""
    kind = NOISES.index(noise)
    draw = np.random.default_rng([SEED, kind, round(effect * 1e6) % 2**32])
    logs = noise.draw(draw, (trials, passes or noise.passes, OFF.size)) + np.log1p(effect) * OFF
    seconds = 1e-3 * np.exp(logs)
    off, on = seconds[..., OFF == 1].tolist(), seconds[..., OFF == 0].tolist()
    for one, other in zip(off, on, strict=True):
        yield stats.estimate([stats.paired_logs(a, b) for a, b in zip(one, other, strict=True)])


def verdicts(noise: Noise, effect: float, passes: int | None = None) -> list[Verdict]:
    return [decide(found, MEASURE)[0] for found in runs(noise, effect, passes=passes)]


@by_name
@pytest.mark.parametrize("passes", [3, 5, 8])
def test_identical_code_is_seldom_called_faster_or_slower(noise: Noise, passes: int) -> None:
    found = verdicts(noise, 0.0, passes)
    assert sum(verdict in CLAIMS for verdict in found) <= MOST_FALSE


@by_name
@pytest.mark.parametrize(("sign", "verdict"), [(1, Verdict.FASTER), (-1, Verdict.SLOWER)])
def test_a_true_effect_is_found(noise: Noise, sign: int, verdict: Verdict) -> None:
    assert verdicts(noise, sign * noise.effect).count(verdict) >= LEAST_FOUND
