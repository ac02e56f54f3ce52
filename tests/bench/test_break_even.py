"""Where TBO starts to pay: bracket, crossing, and the answers that are none."""

import math
from dataclasses import replace

import pytest
import synthetic

from bench.deciding.break_even import BreakEven, Kind, break_evens, zero_crossing
from bench.deciding.compare import Comparison, Reason, Verdict, compare_off_on, decide
from bench.deciding.stats import estimate
from bench.settings import MeasureSettings
from moe_impl.support import TBO_OFF

LINK = synthetic.cases([128])[0].link


def row(tokens: int, speedup: float, spread: float = 1e-4, limits: tuple[str, ...] = ()) -> Comparison:
    logs = [math.log(speedup) + spread * step for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    found = estimate([[log] for log in logs])
    verdict, reasons = decide(found, MeasureSettings())
    return Comparison(
        workload=synthetic.workload(tokens),
        link=LINK,
        variant=synthetic.variant(),
        verdict=verdict,
        reasons=reasons,
        estimate=found,
        baseline_s=speedup,
        variant_s=1.0,
        labels=(),
        limits=limits,
        flags=(),
        timers=("cuda_event",),
    )


def only_answer(rows: list[Comparison]) -> BreakEven:
    (answer,) = break_evens(rows)
    return answer


def test_the_bracket_holds_the_largest_not_faster_and_the_first_of_the_faster() -> None:
    found = only_answer([row(512, 0.9), row(128, 0.8), row(2048, 1.2), row(1024, 1.1)])
    assert (found.kind, found.largest_not_faster, found.smallest_faster) == (Kind.CROSSING, 512, 1024)


def test_the_crossing_is_linear_in_log_tokens() -> None:
    found = only_answer([row(256, 1 / 1.1), row(1024, 1.1)])
    assert found.crossing == pytest.approx(512)
    assert found.crossing_low is not None
    assert found.crossing_high is not None
    assert found.crossing_low < 512 < found.crossing_high


@pytest.mark.parametrize(("tokens", "close"), [((512, 1024), True), ((512, 1025), False), ((256, 1024), False)])
def test_a_crossing_between_token_counts_far_apart_is_not_to_be_quoted(tokens: tuple[int, int], close: bool) -> None:
    found = only_answer([row(count, speedup) for count, speedup in zip(tokens, (1 / 1.1, 1.1), strict=True)])
    assert found.crossing_between == found.bracket == tokens
    assert found.close_crossing == (found.crossing if close else None)


def test_wider_intervals_widen_the_crossing() -> None:
    narrow, wide = (only_answer([row(256, 0.8, spread), row(1024, 1.25, spread)]) for spread in (1e-4, 1e-2))
    assert narrow.crossing == pytest.approx(wide.crossing or 0)
    assert (narrow.crossing_low or 0) > (wide.crossing_low or 0)
    assert (narrow.crossing_high or 0) < (wide.crossing_high or 0)


def test_same_counts_as_not_faster() -> None:
    found = only_answer([row(128, 0.9), row(256, 1.0), row(512, 1.1)])
    assert (found.largest_not_faster, found.smallest_faster) == (256, 512)


def test_faster_that_does_not_last_is_not_monotone() -> None:
    found = only_answer([row(128, 1.1), row(256, 0.9), row(512, 1.1)])
    assert found.kind is Kind.NOT_MONOTONE
    assert found.crossing is None
    assert found.verdicts == ((128, Verdict.FASTER), (256, Verdict.SLOWER), (512, Verdict.FASTER))
    assert only_answer([row(128, 1.1), row(256, 0.9)]).kind is Kind.NOT_MONOTONE


def test_faster_everywhere_and_nowhere_have_no_crossing() -> None:
    everywhere = only_answer([row(128, 1.1), row(256, 1.2)])
    nowhere = only_answer([row(128, 0.8), row(256, 0.9)])
    assert (everywhere.kind, everywhere.smallest_faster, everywhere.crossing) == (Kind.EVERYWHERE, 128, None)
    assert (nowhere.kind, nowhere.largest_not_faster, nowhere.crossing) == (Kind.NOWHERE, 256, None)


def test_a_row_with_limits_takes_the_claim_from_its_series() -> None:
    found = only_answer([row(128, 0.9), row(256, 1.1, limits=("bf16 weight traffic",))])
    assert (found.kind, found.why, found.crossing) == (Kind.NO_CLAIM, ("bf16 weight traffic",), None)


def test_rows_in_which_tbo_turned_itself_off_take_no_part() -> None:
    off = (TBO_OFF,)
    found = only_answer([row(64, 1.1, limits=off), row(128, 0.9, limits=off), row(256, 0.8), row(512, 1.2)])
    assert (found.kind, found.largest_not_faster, found.smallest_faster) == (Kind.CROSSING, 256, 512)
    assert [tokens for tokens, _ in found.verdicts] == [256, 512]
    never = only_answer([row(64, 1.1, limits=off), row(128, 0.9, limits=off)])
    assert (never.kind, never.why) == (Kind.NO_CLAIM, off)


def test_variants_precisions_and_links_are_series_of_their_own() -> None:
    trials = synthetic.Builder(passes=2, pairs=1).trials(synthetic.cases([128, 256], ("bf16", "nvfp4-w4a16"), (2, 4)))
    found = break_evens(compare_off_on(trials, MeasureSettings()))
    assert len(found) == 4
    assert all([tokens for tokens, _ in answer.verdicts] == [128, 256] for answer in found)


def test_a_curve_that_never_rises_through_one_has_no_crossing() -> None:
    assert zero_crossing([1, 2, 4], [0.1, 0.2, 0.3]) is None
    assert zero_crossing([1, 2, 4], [0.3, 0.1, -0.3]) is None
    found = zero_crossing([1, 2, 4, 8], [-1.0, 1.0, -1.0, 1.0])
    assert found is not None
    assert (found.tokens, found.between) == (pytest.approx(math.sqrt(32)), (4, 8))


STRADDLING = 0.03
"""A spread whose interval lies on both sides of 1."""


def test_unknown_is_not_no() -> None:
    found = only_answer([row(128, 1.0, STRADDLING), row(256, 1.0, STRADDLING)])
    assert {verdict for _, verdict in found.verdicts} == {Verdict.UNDECIDED}
    assert (found.kind, found.largest_not_faster) == (Kind.UNDECIDED, None)
    some = only_answer([row(128, 0.9), row(256, 1.0, STRADDLING)])
    assert (some.kind, some.largest_not_faster) == (Kind.UNDECIDED, 128)


def test_an_undecided_row_above_the_first_faster_leaves_the_answer_open() -> None:
    gap = [row(128, 1.1), row(256, 1.0, STRADDLING), row(512, 1.1)]
    assert only_answer(gap).kind is Kind.UNDECIDED
    assert only_answer([*gap, row(1024, 0.9)]).kind is Kind.NOT_MONOTONE


def test_an_undecided_row_below_bounds_nothing() -> None:
    found = only_answer([row(128, 0.9), row(256, 0.99, STRADDLING), row(512, 1.1)])
    assert (found.kind, found.largest_not_faster, found.smallest_faster) == (Kind.CROSSING, 128, 512)
    assert found.crossing_between == (256, 512)
    open_below = only_answer([row(256, 0.99, STRADDLING), row(512, 1.1)])
    assert (open_below.kind, open_below.largest_not_faster) == (Kind.CROSSING, None)


def test_a_row_that_failed_in_some_passes_takes_no_part_in_the_interpolation() -> None:
    failed = replace(row(512, 0.5), verdict=Verdict.UNDECIDED, reasons=(Reason.PASS_FAILED,))
    found = only_answer([row(256, 1 / 1.1), failed, row(1024, 1.1)])
    assert (found.crossing, found.crossing_between) == (pytest.approx(512), (256, 1024))
