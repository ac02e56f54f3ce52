"""How many rows and pairs go to each rank: the GPU twin of ``rows.count_peers``, no host wait."""

import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import check, row_block
from moe_impl.rows import SentRows

TOKENS = 256
"""Tokens whose rows a program counts at a time."""


@triton.jit
def count_peers_kernel(
    row_TR, experts_MK, counts_R2, tokens, K: tl.constexpr, SLOTS: tl.constexpr, R: tl.constexpr, TOKENS: tl.constexpr
):
    r = tl.program_id(0)
    k = tl.arange(0, SLOTS)
    rows = tl.zeros([TOKENS], tl.int32)
    pairs = tl.zeros([TOKENS], tl.int32)
    for first in range(0, tokens, TOKENS):
        t = first + tl.arange(0, TOKENS)
        row = tl.load(row_TR + t * R + r, mask=t < tokens, other=-1)
        sent = row >= 0
        slots = sent[:, None] & (k < K)[None, :]
        expert = tl.load(experts_MK + row[:, None] * K + k[None, :], mask=slots, other=-1)
        rows += sent.to(tl.int32)
        pairs += tl.sum((expert >= 0).to(tl.int32), 1)
    tl.store(counts_R2 + 2 * r, tl.sum(rows))
    tl.store(counts_R2 + 2 * r + 1, tl.sum(pairs))


def count_peers(rows: SentRows, counts_R2: Tensor) -> None:
    """See :func:`moe_impl.rows.count_peers`."""
    tokens, num_ranks = rows.row_TR.shape
    check(tuple(counts_R2.shape) == (num_ranks, 2), f"counts of shape {tuple(counts_R2.shape)} for {num_ranks} ranks")
    K = rows.experts_MK.shape[1]
    count_peers_kernel[(num_ranks,)](
        rows.row_TR, rows.experts_MK, counts_R2, tokens, K, row_block(K), num_ranks, TOKENS
    )
