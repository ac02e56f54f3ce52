"""What counts as agreeing with the oracle, and what does not."""

import math

import pytest
import torch

from bench import correctness
from bench.correctness import ROW_RATIO_LIMIT, TOLERANCE, Errors, errors, judge

EXPECTED = torch.ones(64, 32)


def test_equal_outputs_have_no_error() -> None:
    assert errors(EXPECTED, EXPECTED) == Errors(0.0, 0.0)


def test_the_relative_error_is_frobenius() -> None:
    found = errors(EXPECTED * 1.01, EXPECTED)
    assert found.relative == pytest.approx(0.01, rel=1e-4)
    assert found.row_ratio == pytest.approx(1.0, rel=1e-4)


def test_one_wrong_row_that_hides_in_the_norm_is_caught_by_its_ratio() -> None:
    expected = torch.ones(4000, 8)
    actual = expected * 1.002
    actual[17] *= 1.2
    found = errors(actual, expected)
    assert found.relative < TOLERANCE["bf16"]
    assert found.row_ratio > ROW_RATIO_LIMIT
    assert not found.within(TOLERANCE["bf16"])


def test_rows_closer_than_a_bf16_step_do_not_make_a_ratio() -> None:
    actual = EXPECTED.clone()
    actual[3] *= 1.004  # a step in one row, where all others are exact
    assert errors(actual, EXPECTED).within(TOLERANCE["bf16"])


def test_a_flipped_code_in_a_short_row_makes_no_ratio_in_w4a4_and_a_wrong_row_does() -> None:
    actual = EXPECTED * 1.002
    actual[3] *= 1.15
    assert not errors(actual, EXPECTED).within(TOLERANCE["nvfp4"])
    assert errors(actual, EXPECTED, "nvfp4").within(TOLERANCE["nvfp4"])
    actual[3] = -EXPECTED[3]
    assert errors(actual, EXPECTED, "nvfp4").row_ratio > ROW_RATIO_LIMIT


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_never_within(poison: float) -> None:
    actual = EXPECTED.clone()
    actual[0, 0] = poison
    assert not errors(actual, EXPECTED).within(1e9)


def test_a_row_that_should_be_zero_and_is_not_is_caught() -> None:
    expected = EXPECTED.clone()
    expected[5] = 0
    actual = expected.clone()
    actual[5, 0] = 1e-3
    assert errors(expected, expected).within(0.0)
    assert not errors(actual, expected).within(TOLERANCE["bf16"])


def test_the_worst_layer_decides() -> None:
    check = judge("bf16", [Errors(1e-3, 2.0), Errors(2e-2, 1.0), Errors(5e-3, 3.0)], True)
    assert (check.relative_error, check.worst_row_ratio, check.passed) == (2e-2, 3.0, False)
    assert judge("bf16", [Errors(1e-3, 2.0)], None).passed


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_in_any_layer_is_what_the_record_shows(place: int) -> None:
    layers = [Errors(0.5, 20.0), Errors(1e-3, 1.0)]
    layers.insert(place, Errors(math.nan, math.nan))
    check = judge("bf16", layers, None)
    assert math.isnan(check.relative_error)
    assert math.isnan(check.worst_row_ratio)
    assert not check.passed


def test_rows_that_should_be_zero_must_be_and_set_no_standard() -> None:
    """A skewed routing brings most tokens nothing here: they must not make ordinary errors look large."""
    expected = torch.zeros(10, 64)
    expected[:3] = 1.0
    actual = expected * 1.01
    found = correctness.errors(actual, expected)
    assert found.row_ratio == pytest.approx(1.0)
    assert found.within(2e-2)
    actual[9, 0] = 1e-3
    assert not correctness.errors(actual, expected).within(2e-2)


def test_nothing_at_all_is_right_only_where_nothing_is_expected() -> None:
    nothing = torch.zeros(4, 64)
    assert correctness.errors(nothing, nothing).within(1e-3)
    assert not correctness.errors(nothing + 1e-6, nothing).within(1e-3)
    assert not correctness.errors(nothing * torch.nan, nothing).within(1e-3)
    assert not correctness.errors(nothing * torch.nan, nothing + 1).within(1e-3)


def test_the_chain_between_layers_is_held_to_attention_and_to_the_next_input() -> None:
    draw = torch.Generator().manual_seed(0)
    before, x, following = (torch.randn(32, 64, generator=draw).bfloat16() for _ in range(3))
    right = correctness.Link(before, x, x, following, following)
    assert correctness.broken_chain([right, correctness.Link(following, x, x, x, x)]) is None
    off = correctness.Link(before, x * 1.02, x, following, following)
    assert "attention of layer 0" in str(correctness.broken_chain([off]))
    off = correctness.Link(before, x, x, following * 1.01, following)
    assert "layer 0 hands on" in str(correctness.broken_chain([off]))
    assert "layer 1 did not get" in str(correctness.broken_chain([right, right]))
