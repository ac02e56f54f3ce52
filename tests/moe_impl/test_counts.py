"""Receive exact: what the host is told."""

from types import SimpleNamespace

import pytest
import torch

from moe_impl import counts as receive_counts
from moe_impl import rows
from moe_impl.counts import HostCounts
from moe_impl.overlap import turns

pytest.importorskip("triton")

IDS = torch.tensor([[0, 5, 7], [1, 2, 3]], dtype=torch.int32)


def test_the_counts_are_rows_and_pairs() -> None:
    sent = rows.plan_rows(IDS, torch.ones(2, 3), num_experts=8, ep_size=4)
    assert HostCounts().wait(sent) == (5, 6)
    trimmed = sent.trimmed(5, 6)
    assert (trimmed.capacity, trimmed.pairs_capacity(2)) == (5, 6)
    assert sent.pairs_capacity(2) == 4 * 2 * 2


@pytest.mark.parametrize(("num_rows", "num_pairs"), [(0, 0), (1, 8), (65_536, 524_288), (2**24 - 1, 2**24 - 1)])
def test_one_word_carries_sequence_and_both_counts(num_rows: int, num_pairs: int) -> None:
    from moe_impl.kernels.notify import COUNT_BITS, notify

    word = torch.full((1,), -1)
    counts = SimpleNamespace(rows=torch.tensor([num_rows]).int(), pairs=torch.tensor([num_pairs]).int())
    for sequence in (1, 2**15 - 1):
        notify(counts.rows, counts.pairs, word, sequence)
        found = int(word)
        mask = (1 << COUNT_BITS) - 1
        assert (found >> (2 * COUNT_BITS), (found >> COUNT_BITS) & mask, found & mask) == (
            sequence,
            num_rows,
            num_pairs,
        )


def test_missing_counts_are_told_before_the_hand_over_they_delay() -> None:
    assert receive_counts.DEADLINE_S < turns.DEADLINE_S
