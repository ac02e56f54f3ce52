"""Which bytes a host-staged transfer moves in which chunk, and through which slot of its ring. No tensor, no clock."""

from dataclasses import dataclass

CHUNKS_A_TRANSFER = 12
"""The way in starts when the first chunk of the way out has landed: about a twelfth of a transfer is not two-way."""
LEAST_CHUNK_BYTES = 2 * 2**20
"""About 50 us at 40 GB/s: well above what the host needs to issue a chunk, and a copy engine to start one."""
MOST_CHUNK_BYTES = 8 * 2**20
SLOTS = 4
"""One being filled, one being emptied, and two so that neither engine waits for the other's last microsecond."""


@dataclass(frozen=True)
class Chunk:
    """Bytes begin..end of a transfer, staged in the first end - begin bytes of a slot."""

    begin: int
    end: int
    slot: int


def chunk_bytes(num_bytes: int) -> int:
    """Size of all chunks of a transfer but its last, in LEAST_CHUNK_BYTES..MOST_CHUNK_BYTES; a multiple of 512."""
    share = -(-num_bytes // CHUNKS_A_TRANSFER)
    aligned = -(-share // 512) * 512
    return min(max(aligned, LEAST_CHUNK_BYTES), MOST_CHUNK_BYTES)


def chunks(num_bytes: int) -> list[Chunk]:
    """A transfer's chunks in the order in which they travel; none for 0 bytes. Slots take turns."""
    step = chunk_bytes(num_bytes)
    return [
        Chunk(begin, min(begin + step, num_bytes), index % SLOTS)
        for index, begin in enumerate(range(0, num_bytes, step))
    ]
