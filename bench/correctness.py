"""No number without a passed check: compare a run with the oracle, layer by layer, and with the unsplit run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.results import Check

TOLERANCE = {"bf16": 1e-2, "fp8": 3e-2, "nvfp4-w4a16": 1e-2, "nvfp4": 8e-2}
"""Relative Frobenius error of a layer's output against the oracle, by precision."""
AGREEMENT = {"bf16": 2e-3, "fp8": 2e-2, "nvfp4-w4a16": 2e-3, "nvfp4": 2e-2}
"""The same between split and unsplit, for backends whose rows depend on the batch: one last bit may flip a code."""
ATTENTION_AGREEMENT = 1e-2
"""The same of what attention made of the first layer's input: five roundings to bf16 that may each fall the other way,
where torch sums another number of rows in another order (3e-3 where all do); another token's values differ by 1."""
ROW_RATIO_LIMIT = 10.0
"""No row's error may exceed this many times the median row's: a few wrong rows hide in a norm over all."""
HALF_A_STEP = 2.0**-9
ROW_ERROR_FLOOR = {"bf16": HALF_A_STEP, "fp8": HALF_A_STEP, "nvfp4-w4a16": HALF_A_STEP, "nvfp4": 2e-2}
"""Rows that agree to this are equally right, so a median below it says nothing: half a bf16 step; in W4A4, what a
flipped code of h makes of a short row (64 values: measured up to 0.15 where most rows have none)."""


@dataclass(frozen=True)
class Errors:
    """Distance of one layer's output from what was expected."""

    relative: float
    row_ratio: float

    def within(self, tolerance: float) -> bool:
        """False for NaN, too."""
        return self.relative <= tolerance and self.row_ratio <= ROW_RATIO_LIMIT


def errors(actual_TH: Tensor, expected_TH: Tensor, precision: str = "bf16") -> Errors:
    """Relative Frobenius error, and the largest row error over the median row error (or its floor)."""
    difference_TH = actual_TH.float() - expected_TH.float()
    expected_T = expected_TH.float().norm(dim=1)
    row_error_T = difference_TH.norm(dim=1) / expected_T.clamp(min=torch.finfo(torch.float32).tiny)
    relative = difference_TH.norm() / expected_T.norm()
    median = row_error_T.median().clamp(min=ROW_ERROR_FLOOR[precision])
    return Errors(float(relative), float(row_error_T.max() / median))


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


def of_all_ranks(checks: Sequence[Check]) -> Check:
    """The worst of every rank's check of the same variant."""
    same = [check.same_as_unsplit for check in checks]
    return replace(
        checks[0],
        relative_error=max((check.relative_error for check in checks), key=_nan_last),
        worst_row_ratio=max((check.worst_row_ratio for check in checks), key=_nan_last),
        same_as_unsplit=None if None in same else all(same),
        passed=all(check.passed for check in checks),
    )


def _nan_last(value: float) -> tuple[bool, float]:
    return (value != value, value)
