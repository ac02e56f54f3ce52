"""Tell the host how many rows and pairs came: one word in pinned memory, written by the GPU, no synchronisation."""

import triton
import triton.language as tl
from torch import Tensor

COUNT_BITS = 24
"""Bits of each count in the word; the rest is a sequence number, so that one store is the whole message."""


# Not specialised: a sequence number of 1, or a multiple of 16, would be compiled anew while the GPU waits.
@triton.jit(do_not_specialize=["sequence"])
def notify_kernel(num_rows, num_pairs, word, sequence, BITS: tl.constexpr):
    rows = tl.load(num_rows).to(tl.int64)
    pairs = tl.load(num_pairs).to(tl.int64)
    tl.store(word, (tl.cast(sequence, tl.int64) << (2 * BITS)) | (rows << BITS) | pairs)


def notify(num_rows: Tensor, num_pairs: Tensor, word: Tensor, sequence: int) -> None:
    """word = sequence, rows, pairs, from the highest bits down.

    Args:
        num_rows, num_pairs: int32 [1] on the device, each below 2^24.
        word: int64 [1] in pinned host memory (in the interpreter: any).
        sequence: 1 .. 2^15 - 1.
    """
    notify_kernel[(1,)](num_rows, num_pairs, word, sequence, COUNT_BITS, num_warps=1)
