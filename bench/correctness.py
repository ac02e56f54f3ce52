"""No number without a passed check: compare a run with the oracle, layer by layer, and with the unsplit run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.results import Check
from moe_impl.variant_run import LayerTrace

TOLERANCE = {"bf16": 1e-2, "fp8": 3e-2, "nvfp4-w4a16": 1e-2, "nvfp4": 8e-2}
"""Relative Frobenius error of a layer's output against the oracle, by precision."""
AGREEMENT = {"bf16": 2e-3, "fp8": 2e-2, "nvfp4-w4a16": 2e-3, "nvfp4": 2e-2}
"""The same between split and unsplit, for backends whose rows depend on the batch: one last bit may flip a code."""
ATTENTION_AGREEMENT = 1e-2
"""The same of what attention made of a layer's input, against attention of the whole batch at once: five roundings to
bf16 that may each fall the other way, where torch sums another number of rows in another order (3e-3 where all do);
another token's values differ by 1."""
NEXT_AGREEMENT = 2e-3
"""The same of the next layer's input: one rounding to bf16."""
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
    """Relative Frobenius error, and the largest row error over the median row error (or its floor).

    A row that is expected to be zero (a token that a skewed routing brings nothing) has no part in the median, and must
    be zero.
    """
    difference_T = (actual_TH.float() - expected_TH.float()).norm(dim=1)
    expected_T = expected_TH.float().norm(dim=1)
    row_error_T = torch.where(difference_T == 0, 0.0, difference_T / expected_T)
    whole = difference_T.norm()
    relative = whole if whole == 0 else whole / expected_T.norm()
    counted_T = row_error_T[expected_T > 0]
    median = counted_T.median() if len(counted_T) else row_error_T.new_zeros(())
    return Errors(float(relative), float(row_error_T.max() / median.clamp(min=ROW_ERROR_FLOOR[precision])))


def against_oracle(
    traces: Sequence[LayerTrace],
    oracle: Callable[[int, LayerTrace], Tensor],
    precision: str,
    same_as_unsplit: bool | None = None,
) -> Check:
    """The record of a run's comparison, layer by layer, with what the oracle makes of the run's own inputs."""
    return judge(
        precision,
        [errors(trace.y_TH, oracle(layer, trace), precision) for layer, trace in enumerate(traces)],
        same_as_unsplit,
    )


@dataclass(frozen=True)
class Link:
    """What lies between two layers' experts: as a run had it, and as it should be. bf16 [T, H] each."""

    before_TH: Tensor
    """The layer's input."""
    x_TH: Tensor
    attended_TH: Tensor
    """What ``x_TH`` should be."""
    next_TH: Tensor
    expected_TH: Tensor
    """What ``next_TH`` should be."""


def broken_chain(layers: Sequence[Link]) -> str | None:
    """The first place where a run departs from its layers' order: attention, the next input, or its hand-over."""
    for layer, link in enumerate(layers):
        attended = errors(link.x_TH, link.attended_TH)
        if not attended.within(ATTENTION_AGREEMENT):
            return f"attention of layer {layer} differs by {attended.relative:.1e} from that of the whole batch"
        following = errors(link.next_TH, link.expected_TH)
        if not following.within(NEXT_AGREEMENT):
            return f"what layer {layer} hands on differs by {following.relative:.1e} from x + y / rms(y)"
        if layer and not torch.equal(link.before_TH, layers[layer - 1].next_TH):
            return f"layer {layer} did not get what layer {layer - 1} handed on"
    return None


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


def said_wrong(check: Check) -> str:
    """Which of a failed check's two limits was passed, and by how much."""
    if not check.relative_error <= check.tolerance:
        return f"differs from the oracle by {check.relative_error:.2g}, tolerance {check.tolerance:g}"
    return (
        f"one row differs from the oracle by {check.worst_row_ratio:.3g} times the median row's error, "
        f"limit {check.row_ratio_limit:g}"
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
