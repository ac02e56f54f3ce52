"""Counting sort of received rows' slots by local expert: the GPU twin of ``rows.plan_pairs``, no host wait."""

import torch
import triton
import triton.language as tl

from moe_impl.kernels.launch import row_block
from moe_impl.options import WorstCaseLayout
from moe_impl.rows import Pairs, ReceivedRows

SLOTS = 256
"""Slots one program sorts; it holds [SLOTS, L] flags."""


@triton.jit
def _flags(experts, count, pid, K: tl.constexpr, SLOTS: tl.constexpr, EXPERTS: tl.constexpr):
    slots = pid * SLOTS + tl.arange(0, SLOTS)
    present = slots < tl.load(count) * K
    expert = tl.load(experts + slots, mask=present, other=-1)
    flags = (expert[:, None] == tl.arange(0, EXPERTS)[None, :]).to(tl.int32)
    return slots, present, expert, flags


@triton.jit
def count_kernel(
    experts, count, counts_LB, blocks, K: tl.constexpr, L: tl.constexpr, SLOTS: tl.constexpr, EXPERTS: tl.constexpr
):
    pid = tl.program_id(0)
    _, _, _, flags = _flags(experts, count, pid, K, SLOTS, EXPERTS)
    lanes = tl.arange(0, EXPERTS)
    tl.store(counts_LB + lanes * blocks + pid, tl.sum(flags, 0), mask=lanes < L)


@triton.jit
def place_kernel(
    experts, count, ends_LB, ends_L, row_P, pair_MK, blocks, expert_stride,
    K: tl.constexpr, L: tl.constexpr, SLOTS: tl.constexpr, EXPERTS: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    if pid == 0:
        lanes = tl.arange(0, EXPERTS)
        last = tl.load(ends_LB + lanes * blocks + blocks - 1, mask=lanes < L, other=0)
        tl.store(ends_L + lanes, last + lanes * expert_stride, mask=lanes < L)
    slots, present, expert, flags = _flags(experts, count, pid, K, SLOTS, EXPERTS)
    here = present & (expert >= 0)
    # Rank among this block's slots of the same expert, counted from the end of the block's share.
    after = tl.sum(flags * (tl.sum(flags, 0)[None, :] - tl.cumsum(flags, 0)), 1)
    end = tl.load(ends_LB + expert * blocks + pid, mask=here, other=0)
    pair = end - 1 - after + expert * expert_stride
    tl.store(row_P + pair, slots // K, mask=here)
    tl.store(pair_MK + slots, tl.where(here, pair, -1), mask=present)


def sort_pairs(rows: ReceivedRows, local_experts: int, layout: WorstCaseLayout = "packed") -> Pairs:
    """See :func:`moe_impl.rows.plan_pairs`: the same result, bit for bit, in two small kernels and a cumsum."""
    capacity, K = rows.experts_MK.shape
    blocks = triton.cdiv(capacity * K, SLOTS)
    device = rows.experts_MK.device
    expert_stride = capacity if layout == "per_expert" else None
    if capacity == 0:
        ends_L = torch.zeros(local_experts, dtype=torch.int32, device=device)
        return Pairs(ends_L, rows.num_rows[:0], rows.experts_MK, expert_stride)
    experts = row_block(local_experts)
    counts_LB = torch.empty(local_experts, blocks, dtype=torch.int32, device=device)
    count_kernel[(blocks,)](rows.experts_MK, rows.num_rows, counts_LB, blocks, K, local_experts, SLOTS, experts)
    # Ends within an expert's own places, or of all pairs before.
    ends_LB = (counts_LB.flatten() if expert_stride is None else counts_LB).cumsum(-1, dtype=torch.int32)
    ends_L = torch.empty(local_experts, dtype=torch.int32, device=device)
    row_P = torch.empty(rows.pairs_capacity(local_experts, layout), dtype=torch.int32, device=device)
    pair_MK = torch.empty(capacity, K, dtype=torch.int32, device=device)
    place_kernel[(blocks,)](
        rows.experts_MK, rows.num_rows, ends_LB, ends_L, row_P, pair_MK, blocks, expert_stride or 0,
        K, local_experts, SLOTS, experts,
    )  # fmt: skip
    return Pairs(ends_L, row_P, pair_MK, expert_stride)
