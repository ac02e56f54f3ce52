"""Where a batch is cut, how large its largest share is, and when it is not cut at all."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_impl.options import EQUAL, SplitName, SplitPolicy, Variant
from moe_impl.split import as_run, capacity_tokens, largest_share, room, token_slices, turned_off

POLICIES: tuple[SplitName, ...] = ("equal", "balanced", "ratio")


def split(policy: SplitName = "equal", split_factor: int = 2, **more: float) -> Variant:
    return Variant("torch", split_factor=split_factor, split=SplitPolicy(policy, **more))  # type: ignore[arg-type]


def sizes(variant: Variant, rows_T: list[int]) -> list[int]:
    slices = token_slices(variant, len(rows_T), lambda: rows_T)
    assert [0, *(share.stop for share in slices)] == [*(share.start for share in slices), len(rows_T)], "contiguous"
    return [share.stop - share.start for share in slices]


@given(tokens=st.integers(0, 300), num_ubatches=st.integers(1, 8))
def test_equal_shares_differ_by_one_at_most_with_the_larger_first(tokens: int, num_ubatches: int) -> None:
    found = sizes(split(split_factor=num_ubatches), [1] * tokens)
    assert (len(found), sum(found)) == (num_ubatches, tokens)
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] <= 1


@given(rows=st.lists(st.integers(1, 8), max_size=40), num_ubatches=st.integers(1, 6))
def test_balanced_cuts_are_those_nearest_to_equal_shares_of_the_rows(rows: list[int], num_ubatches: int) -> None:
    found = sizes(split("balanced", num_ubatches), rows)
    assert (len(found), sum(found)) == (num_ubatches, len(rows))
    assert min(found) >= 0
    before = [sum(rows[:place]) for place in range(len(rows) + 1)]
    for cut in range(1, num_ubatches):
        wanted = before[-1] * cut / num_ubatches
        nearest = min(abs(have - wanted) for have in before)
        assert abs(before[sum(found[:cut])] - wanted) == nearest


def test_balanced_moves_the_cut_to_where_the_rows_are() -> None:
    assert sizes(split("balanced"), [8, 8, 1, 1, 1, 1, 1, 1, 1, 1]) == [1, 9]
    assert sizes(split("balanced"), [1] * 10) == [5, 5]
    assert sizes(split("balanced", 4), [8]) == [0, 0, 1, 0], "a tie goes to the earlier place"


@pytest.mark.parametrize(("tokens", "first"), [(100, 48), (2, 1), (1, 0), (0, 0)])
def test_a_ratio_is_the_first_share(tokens: int, first: int) -> None:
    assert sizes(split("ratio", ratio=0.48), [1] * tokens) == [first, tokens - first]


def test_a_ratio_of_three_micro_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="a ratio cuts a batch in 2, not in 3"):
        token_slices(split("ratio", 3), 10, list)


def test_only_balanced_asks_for_the_routing() -> None:
    def never() -> list[int]:
        raise AssertionError("routing is not needed")

    for policy in ("equal", "ratio"):
        token_slices(split(policy), 10, never)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="not needed"):
        token_slices(split("balanced"), 10, never)


@given(tokens=st.integers(1, 300), num_ubatches=st.integers(1, 8), ratio=st.floats(0.01, 0.99))
def test_the_largest_share_is_that_of_the_slices(tokens: int, num_ubatches: int, ratio: float) -> None:
    for variant in (split(split_factor=num_ubatches), split("ratio", ratio=ratio)):
        assert largest_share(variant, tokens) == max(sizes(variant, [1] * tokens))
    assert largest_share(split("balanced", num_ubatches), tokens) == -(-tokens // num_ubatches), "an even load's"


@given(
    tokens=st.integers(0, 300), more=st.integers(0, 300), num_ubatches=st.integers(1, 8), ratio=st.floats(0.01, 0.99)
)
def test_every_micro_batch_has_room_for_its_share_of_the_largest_batch(
    tokens: int, more: int, num_ubatches: int, ratio: float
) -> None:
    for variant in (split(split_factor=num_ubatches), split("ratio", ratio=ratio), split("balanced", num_ubatches)):
        slices = token_slices(variant, tokens, lambda: [1] * tokens)
        assert room(variant, slices) is None, "each its own"
        larger = replace(variant, max_tokens_per_rank=tokens + more)
        assert room(replace(larger, receive="exact"), slices) is None
        assert room(larger, slices) == capacity_tokens(larger, tokens) == largest_share(variant, tokens + more)
        assert max(part.stop - part.start for part in slices) <= largest_share(variant, tokens + more)


def test_a_balanced_cut_may_need_more_than_its_share() -> None:
    variant = replace(split("balanced"), max_tokens_per_rank=12)
    assert room(variant, token_slices(variant, 10, lambda: [8, 8, 1, 1, 1, 1, 1, 1, 1, 1])) == 9
    assert room(variant, [slice(0, 5), slice(5, 10)]) == 6


def test_a_variant_that_turns_itself_off_has_room_for_the_largest_batch_unsplit() -> None:
    variant = replace(split(min_tokens=512), max_tokens_per_rank=4096)
    assert capacity_tokens(variant, 511) == 4096
    assert capacity_tokens(variant, 512) == 2048


@pytest.mark.parametrize("policy", POLICIES)
def test_below_min_tokens_the_variant_runs_unsplit_and_serial(policy: SplitName) -> None:
    variant = split(policy, min_tokens=512)
    assert turned_off(variant, 511)
    assert not turned_off(variant, 512)
    assert as_run(variant, 511) == as_run(variant.split_serial(), 511) == variant.unsplit()
    assert as_run(variant, 512) == variant
    assert largest_share(variant, 511) == 511
    assert largest_share(variant, 512) == 256


def test_the_unsplit_run_forgets_the_split_and_the_split_serial_run_keeps_it() -> None:
    variant = split("balanced", 4, min_tokens=9)
    assert variant.unsplit().split == EQUAL
    assert variant.split_serial().split == variant.split
    assert Variant("torch", split_factor=1, split=variant.split).normalized() == Variant("torch").unsplit()


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (SplitPolicy(), "equal"),
        (SplitPolicy("balanced"), "balanced"),
        (SplitPolicy("ratio", 0.48, 512), "ratio-0.48-min512"),
        (SplitPolicy("ratio"), "ratio-0.5"),
    ],
)
def test_a_policy_has_a_name_for_labels_and_filters(policy: SplitPolicy, text: str) -> None:
    assert str(policy) == text
    named = "" if policy == EQUAL else f" {text}"
    assert Variant("torch", split=policy).label == f"streams x2{named} torch"
    assert Variant("torch", split=policy).unsplit().label == "off torch"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"policy": "ratio", "ratio": 0.0}, "ratio must lie between 0 and 1, got 0"),
        ({"policy": "ratio", "ratio": 1.0}, "ratio must lie between 0 and 1, got 1"),
        ({"policy": "ratio", "ratio": float("nan")}, "ratio must lie between 0 and 1, got nan"),
        ({"policy": "balanced", "ratio": 0.4}, "ratio goes with policy ratio, not with balanced"),
        ({"min_tokens": -1}, "min_tokens must not be negative, got -1"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        SplitPolicy(**wrong)  # type: ignore[arg-type]
