"""The plan of a host-staged transfer: every byte once, in order, in a slot that holds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_impl.transport.chunks import (
    CHUNKS_A_TRANSFER,
    LEAST_CHUNK_BYTES,
    MOST_CHUNK_BYTES,
    SLOTS,
    Chunk,
    chunk_bytes,
    chunks,
)

SIZES = st.integers(0, 2**30) | st.builds(
    lambda times, step, off: max(0, times * step + off),
    st.integers(0, 40),
    st.sampled_from([LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES, CHUNKS_A_TRANSFER * LEAST_CHUNK_BYTES]),
    st.integers(-513, 513),
)


@given(SIZES)
def test_every_byte_travels_once_and_in_order(num_bytes: int) -> None:
    at = 0
    for chunk in chunks(num_bytes):
        assert chunk.begin == at < chunk.end
        at = chunk.end
    assert at == num_bytes


@given(SIZES)
def test_a_chunk_fits_its_slot_and_only_the_last_one_is_short(num_bytes: int) -> None:
    sizes = [chunk.end - chunk.begin for chunk in chunks(num_bytes)]
    assert all(size <= MOST_CHUNK_BYTES for size in sizes)
    assert all(size == chunk_bytes(num_bytes) >= LEAST_CHUNK_BYTES for size in sizes[:-1])
    assert chunk_bytes(num_bytes) % 512 == 0


@given(SIZES)
def test_a_slot_is_used_again_only_after_all_the_others(num_bytes: int) -> None:
    slots = [chunk.slot for chunk in chunks(num_bytes)]
    assert slots == [index % SLOTS for index in range(len(slots))]


@given(SIZES)
def test_the_part_that_is_not_two_way_is_a_twelfth_unless_the_transfer_is_small(num_bytes: int) -> None:
    plan = chunks(num_bytes)
    if num_bytes >= CHUNKS_A_TRANSFER * LEAST_CHUNK_BYTES + 512 * CHUNKS_A_TRANSFER:
        assert len(plan) >= CHUNKS_A_TRANSFER - 1
        assert (plan[0].end - plan[0].begin) / num_bytes <= 1.01 / CHUNKS_A_TRANSFER


@pytest.mark.parametrize(
    ("num_bytes", "plan"),
    [
        (0, []),
        (1, [Chunk(0, 1, 0)]),
        (LEAST_CHUNK_BYTES, [Chunk(0, LEAST_CHUNK_BYTES, 0)]),
        (
            LEAST_CHUNK_BYTES + 1,
            [Chunk(0, LEAST_CHUNK_BYTES, 0), Chunk(LEAST_CHUNK_BYTES, LEAST_CHUNK_BYTES + 1, 1)],
        ),
    ],
)
def test_small_transfers_by_hand(num_bytes: int, plan: list[Chunk]) -> None:
    assert chunks(num_bytes) == plan
