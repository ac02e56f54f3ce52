"""Counting sort of received rows' slots by local expert: the GPU twin of ``rows.plan_pairs``, no host wait."""

import torch
import triton
import triton.language as tl

from moe_impl.kernels.launch import row_block
from moe_impl.options import WorstCaseLayout
from moe_impl.rows import Pairs, ReceivedRows

SLOTS = 256
"""Slots a program sorts at a time; it holds [SLOTS, L] flags."""
MOST_COUNTS = 8192
"""Counts that every program of the second kernel reads: one of each expert and program."""


@triton.jit
def chunks_of(count, pid, programs, K: tl.constexpr, SLOTS: tl.constexpr):
    """A program's chunks of SLOTS slots: the first, and the one past its last. Programs' follow one another."""
    chunks = tl.cdiv(tl.load(count) * K, SLOTS)
    share = tl.cdiv(chunks, programs)
    return tl.minimum(pid * share, chunks), tl.minimum((pid + 1) * share, chunks)


@triton.jit
def flags_of(experts, count, chunk, K: tl.constexpr, SLOTS: tl.constexpr, EXPERTS: tl.constexpr):
    """The slots of a chunk, which of them exist, their experts (-1: none), and int32 [SLOTS, EXPERTS] of 0 and 1."""
    slots = chunk * SLOTS + tl.arange(0, SLOTS)
    present = slots < tl.load(count) * K
    expert = tl.load(experts + slots, mask=present, other=-1)
    return slots, present, expert, (expert[:, None] == tl.arange(0, EXPERTS)[None, :]).to(tl.int32)


@triton.jit
def count_kernel(
    experts, count, counts_LB, programs, K: tl.constexpr, L: tl.constexpr, SLOTS: tl.constexpr, EXPERTS: tl.constexpr
):
    pid = tl.program_id(0)
    first, end = chunks_of(count, pid, programs, K, SLOTS)
    lanes = tl.arange(0, EXPERTS)
    counts = tl.zeros([EXPERTS], tl.int32)
    for chunk in range(first, end):
        _, _, _, flags = flags_of(experts, count, chunk, K, SLOTS, EXPERTS)
        counts += tl.sum(flags, 0)
    tl.store(counts_LB + lanes * programs + pid, counts, mask=lanes < L)


@triton.jit
def place_kernel(
    experts, count, counts_LB, ends_L, row_P, pair_MK, programs, expert_stride,
    K: tl.constexpr, L: tl.constexpr, SLOTS: tl.constexpr, EXPERTS: tl.constexpr, PROGRAMS: tl.constexpr,
    PER_EXPERT: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    first, end = chunks_of(count, pid, programs, K, SLOTS)
    lanes, counters = tl.arange(0, EXPERTS), tl.arange(0, PROGRAMS)
    counted = (lanes < L)[:, None] & (counters < programs)[None, :]
    counts = tl.load(counts_LB + lanes[:, None] * programs + counters[None, :], mask=counted, other=0)
    totals = tl.sum(counts, 1)
    if PER_EXPERT:
        begins = lanes * expert_stride
    else:
        begins = tl.cumsum(totals, 0) - totals
    if pid == 0:
        tl.store(ends_L + lanes, begins + totals, mask=lanes < L)
    places = begins + tl.sum(tl.where((counters < pid)[None, :], counts, 0), 1)
    for chunk in range(first, end):
        slots, present, expert, flags = flags_of(experts, count, chunk, K, SLOTS, EXPERTS)
        pair = tl.sum(flags * (places[None, :] + tl.cumsum(flags, 0)), 1) - 1
        tl.store(row_P + pair, slots // K, mask=expert >= 0)
        tl.store(pair_MK + slots, pair, mask=present)  # of a slot without expert: -1
        places += tl.sum(flags, 0)


def sort_pairs(rows: ReceivedRows, local_experts: int, layout: WorstCaseLayout = "packed") -> Pairs:
    """See :func:`moe_impl.rows.plan_pairs`: the same result, bit for bit, in two small kernels."""
    capacity, K = rows.experts_MK.shape
    device = rows.experts_MK.device
    expert_stride = capacity if layout == "per_expert" else None
    ends_L = torch.empty(local_experts, dtype=torch.int32, device=device)
    if capacity == 0:
        return Pairs(ends_L.zero_(), rows.num_rows[:0], rows.experts_MK, expert_stride)
    experts = row_block(local_experts)
    programs = min(triton.cdiv(capacity * K, SLOTS), max(1, MOST_COUNTS // experts))
    counts_LB = torch.empty(local_experts, programs, dtype=torch.int32, device=device)
    count_kernel[(programs,)](rows.experts_MK, rows.num_rows, counts_LB, programs, K, local_experts, SLOTS, experts)
    row_P = torch.empty(rows.pairs_capacity(local_experts, layout), dtype=torch.int32, device=device)
    pair_MK = torch.empty(capacity, K, dtype=torch.int32, device=device)
    place_kernel[(programs,)](
        rows.experts_MK, rows.num_rows, counts_LB, ends_L, row_P, pair_MK, programs, expert_stride or 0,
        K, local_experts, SLOTS, experts, row_block(programs), expert_stride is not None,
    )  # fmt: skip
    return Pairs(ends_L, row_P, pair_MK, expert_stride)
