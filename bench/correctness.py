"""No number without a passed check: compare a run with the oracle, layer by layer, and with the unsplit run."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.results import Check

TOLERANCE = {"bf16": 1e-2, "fp8": 3e-2, "nvfp4-w4a16": 1e-2, "nvfp4": 8e-2}
"""Relative Frobenius error of a layer's output against the oracle, by precision."""
AGREEMENT = {"bf16": 2e-3, "fp8": 2e-2, "nvfp4-w4a16": 2e-3, "nvfp4": 2e-2}
"""The same between split and unsplit, for backends whose rows depend on the batch: one last bit may flip a code."""
ROW_RATIO_LIMIT = 10.0
"""No row's error may exceed this many times the median row's: a few wrong rows hide in a norm over all."""
ROW_ERROR_FLOOR = 2.0**-9
"""Half a bf16 step: rows that agree to this are equally right, so a median below it says nothing."""


@dataclass(frozen=True)
class Errors:
    """Distance of one layer's output from what was expected."""

    relative: float
    row_ratio: float

    def within(self, tolerance: float) -> bool:
        """False for NaN, too."""
        return self.relative <= tolerance and self.row_ratio <= ROW_RATIO_LIMIT


def errors(actual_TH: Tensor, expected_TH: Tensor) -> Errors:
    """Relative Frobenius error, and the largest row error over the median row error."""
    difference_TH = actual_TH.float() - expected_TH.float()
    expected_T = expected_TH.float().norm(dim=1)
    row_error_T = difference_TH.norm(dim=1) / expected_T.clamp(min=torch.finfo(torch.float32).tiny)
    relative = difference_TH.norm() / expected_T.norm()
    return Errors(float(relative), float(row_error_T.max() / row_error_T.median().clamp(min=ROW_ERROR_FLOOR)))


def judge(precision: str, layers: list[Errors], same_as_unsplit: bool | None) -> Check:
    """The record of a variant's comparison with the oracle over all its layers."""
    tolerance = TOLERANCE[precision]
    return Check(
        relative_error=max((e.relative for e in layers), key=_nan_last),
        tolerance=tolerance,
        worst_row_ratio=max((e.row_ratio for e in layers), key=_nan_last),
        row_ratio_limit=ROW_RATIO_LIMIT,
        same_as_unsplit=same_as_unsplit,
        passed=all(e.within(tolerance) for e in layers),
    )


def _nan_last(value: float) -> tuple[bool, float]:
    return (value != value, value)
