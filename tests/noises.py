"""Noise that a pass's samples have, drawn: log factors in measuring order."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Logs = NDArray[np.float64]
"""[..., samples of a pass] log factors."""
Draw = np.random.Generator
WHITE = 0.003


def white(draw: Draw, shape: tuple[int, ...]) -> Logs:
    """Independent, 0.3 %."""
    return draw.normal(0, WHITE, shape)


def wander(draw: Draw, shape: tuple[int, ...]) -> Logs:
    """A clock that wanders by 0.6 %, each sample 0.97 correlated with the one before."""
    rho = 0.97
    steps = draw.normal(0, 0.006, shape)
    steps[..., 1:] *= np.sqrt(1 - rho**2)
    for before, after in pairwise(range(shape[-1])):
        steps[..., after] += rho * steps[..., before]
    return steps + white(draw, shape)


def power_states(draw: Draw, shape: tuple[int, ...]) -> Logs:
    """Two, 3 % apart, left once in 50 samples."""
    flips = draw.random(shape) < 0.02
    flips[..., 0] = draw.random(shape[:-1]) < 0.5
    return 0.03 * (np.cumsum(flips, axis=-1) % 2) + white(draw, shape)


def hiccups(draw: Draw, shape: tuple[int, ...]) -> Logs:
    """5 % of the samples take 20 to 300 % longer, as on an H100 whose host is shared."""
    longer = np.log1p(draw.uniform(0.2, 3.0, shape)) * (draw.random(shape) < 0.05)
    return white(draw, shape) + longer
