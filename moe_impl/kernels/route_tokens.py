"""Stage ``route``: choose experts, count rows, lay rows out. The GPU twin of ``routing`` and ``rows.plan_rows``.

With skewed routing the rows laid out are those of what peers chose beforehand (``rows.plan_peer_rows``); this rank's
own choice is made all the same, for that is what a router's work is, and then not read.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_impl.kernels.launch import NO_FMA, check, row_block
from moe_impl.options import NODE_RANKS
from moe_impl.rows import PeerChoices, SentRows
from moe_impl.shapes import Router

TOKENS = 4
"""Tokens a program routes; it holds their E scores in registers."""
ROW_TOKENS = 64
"""Tokens whose rows a program lays out."""


@triton.jit
def choose_kernel(
    logits, bias, peer_experts, ids_TK, weights_TK, sent_RT, num_node_rows, tokens,
    E: tl.constexpr, EXPERTS: tl.constexpr, K: tl.constexpr, R: tl.constexpr,
    GROUPS: tl.constexpr, TOP_GROUPS: tl.constexpr, SIGMOID: tl.constexpr, BIASED: tl.constexpr,
    RENORMALIZE: tl.constexpr, SCALE: tl.constexpr, NODE: tl.constexpr, TOKENS: tl.constexpr,
    PEERS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    e = tl.arange(0, EXPERTS)
    inside = (t < tokens)[:, None] & (e < E)[None, :]
    # fp64, rounded once: the oracle's scores, which depend on no device's fast exp.
    wide = tl.load(logits + t[:, None] * E + e[None, :], mask=inside, other=-float("inf")).to(tl.float64)
    if SIGMOID:
        scores = (1.0 / (1.0 + tl.exp(-wide))).to(tl.float32)
    else:
        wide = tl.where((t < tokens)[:, None], wide, 0.0)
        powers = tl.exp(wide - tl.max(wide, 1)[:, None])
        scores = (powers / tl.sum(powers, 1)[:, None]).to(tl.float32)
    choice = scores
    if BIASED:
        choice += tl.load(bias + e, mask=e < E, other=0.0)[None, :]
    choice = tl.where(e[None, :] < E, choice, -float("inf"))
    group = e // (E // GROUPS)
    if TOP_GROUPS < GROUPS:
        # A group's score is the sum of its two best experts; the best groups stay.
        group_scores = tl.full([TOKENS, GROUPS], -float("inf"), tl.float32)
        lanes = tl.arange(0, GROUPS)
        for g in tl.static_range(GROUPS):
            members = tl.where((group == g)[None, :], choice, -float("inf"))
            best, where = tl.max(members, 1, return_indices=True)
            second = tl.max(tl.where(e[None, :] == where[:, None], -float("inf"), members), 1)
            total = tl.where(second == -float("inf"), best, best + second)
            group_scores = tl.where(lanes[None, :] == g, total[:, None], group_scores)
        allowed = tl.zeros([TOKENS, EXPERTS], tl.int1)
        for _ in tl.static_range(TOP_GROUPS):
            best_group = tl.argmax(group_scores, 1)
            group_scores = tl.where(lanes[None, :] == best_group[:, None], -float("inf"), group_scores)
            allowed = allowed | (group[None, :] == best_group[:, None])
        choice = tl.where(allowed, choice, -float("inf"))
    chosen = tl.zeros([TOKENS, EXPERTS], tl.int1)
    for _ in tl.static_range(K):
        best = tl.argmax(choice, 1)
        hit = e[None, :] == best[:, None]
        chosen = chosen | hit
        choice = tl.where(hit, -float("inf"), choice)
    weights = scores
    if RENORMALIZE:
        total = tl.sum(tl.where(chosen, scores, 0.0).to(tl.float64), 1) + 1e-20
        weights = scores / total.to(tl.float32)[:, None]
    weights *= SCALE
    # Ascending ids without a sort: an expert's slot is the number of chosen ones before it.
    slot = tl.cumsum(chosen.to(tl.int32), 1) - 1
    at = t[:, None] * K + slot
    keep = chosen & inside
    tl.store(ids_TK + at, tl.broadcast_to(e[None, :], [TOKENS, EXPERTS]), mask=keep)
    tl.store(weights_TK + at, weights, mask=keep)
    if PEERS:
        k = tl.arange(0, SLOTS)
        slots = (t < tokens)[:, None] & (k < K)[None, :]
        for r in tl.static_range(R):
            expert = tl.load(peer_experts + (t[:, None] * R + r) * K + k[None, :], mask=slots, other=-1)
            tl.store(sent_RT + r * tokens + t, (tl.max(expert, 1) >= 0).to(tl.int32), mask=t < tokens)
    else:
        for r in tl.static_range(R):
            sent = tl.max((chosen & (e // (E // R) == r)[None, :]).to(tl.int32), 1)
            tl.store(sent_RT + r * tokens + t, sent, mask=t < tokens)
        if R <= NODE:  # one node: every token goes there
            tl.store(num_node_rows, tokens, mask=tl.program_id(0) == 0)
        else:
            node_rows = tl.zeros([TOKENS], tl.int32)
            for n in tl.static_range((R + NODE - 1) // NODE):
                node_rows += tl.max((chosen & (e // (E // R) // NODE == n)[None, :]).to(tl.int32), 1)
            tl.atomic_add(num_node_rows, tl.sum(tl.where(t < tokens, node_rows, 0)), sem="relaxed")


@triton.jit
def lay_out_kernel(
    ids, weights, ends_RT, row_TR, token_M, experts_MK, out_weights_MK, num_pairs, tokens,
    L: tl.constexpr, K: tl.constexpr, SLOTS: tl.constexpr, R: tl.constexpr, TOKENS: tl.constexpr, PEERS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(1)
    t = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    inside = t < tokens
    place = r * tokens + t
    end = tl.load(ends_RT + place, mask=inside, other=0)
    before = tl.load(ends_RT + place - 1, mask=inside & (place > 0), other=0)
    sent = inside & (end > before)
    row = end - 1
    tl.store(row_TR + t * R + r, tl.where(sent, row, -1), mask=inside)
    tl.store(token_M + row, t, mask=sent)
    k = tl.arange(0, SLOTS)
    slots = sent[:, None] & (k < K)[None, :]
    if PEERS:  # [T, R, K], local ids
        source = (t[:, None] * R + r) * K + k[None, :]
        local = tl.load(ids + source, mask=slots, other=-1)
    else:  # [T, K], global ids
        source = t[:, None] * K + k[None, :]
        local = tl.load(ids + source, mask=slots, other=-1) - r * L
    weight = tl.load(weights + source, mask=slots, other=0.0)
    at = row[:, None] * K + k[None, :]
    here = slots & (local >= 0) & (local < L)
    tl.store(experts_MK + at, tl.where(here, local, -1), mask=slots)
    tl.atomic_add(num_pairs, tl.sum(here.to(tl.int32)), sem="relaxed")
    tl.store(out_weights_MK + at, weight, mask=slots)


def route_tokens(
    logits_TE: Tensor,
    router: Router,
    top_k: int,
    bias_E: Tensor | None,
    num_experts: int,
    ep_size: int,
    capacity: int | None = None,
    peers: PeerChoices | None = None,
) -> SentRows:
    """``rows.plan_rows`` of ``routing.select_experts``, or ``rows.plan_peer_rows``: the same rows, no host wait.

    Args:
        logits_TE: float32 [T, E].
        bias_E: float32 [E] where the router selects with a bias, else None.
        capacity: M', at least R * T, which is the default.
        peers: with skewed routing, what peers chose for these tokens; contiguous.
    """
    tokens = logits_TE.shape[0]
    check(logits_TE.shape[1] == num_experts, f"{logits_TE.shape[1]} logits a token for {num_experts} experts")
    check(num_experts % ep_size == 0, f"ep_size {ep_size} does not divide {num_experts} experts")
    per_group, left_over = divmod(num_experts, router.num_groups)
    check(not left_over, f"{num_experts} experts do not form {router.num_groups} equal groups")
    check(top_k <= per_group * router.top_groups, f"top_k {top_k} exceeds the experts of {router.top_groups} groups")
    groups = router.num_groups if router.top_groups < router.num_groups else 1
    check(groups & (groups - 1) == 0, f"the kernel takes 1, 2, 4, ... groups, got {groups}")
    if peers is not None:
        for table in (peers.experts_TRK, peers.weights_TRK):
            wanted = (tokens, ep_size, top_k)
            check(tuple(table.shape) == wanted, f"choices of peers of shape {tuple(table.shape)}, expected {wanted}")
            check(table.is_contiguous(), "choices of peers must be contiguous")
    device = logits_TE.device
    capacity = ep_size * tokens if capacity is None else capacity

    def integers(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=device)

    ids_TK, sent_RT = integers(tokens, top_k), integers(ep_size, tokens)
    weights_TK = torch.empty(tokens, top_k, dtype=torch.float32, device=device)
    totals = torch.zeros(2, dtype=torch.int32, device=device)
    num_pairs, num_node_rows = totals[:1], totals[1:]
    if tokens == 0:
        none = totals[:1]
        return SentRows(
            row_TR=integers(0, ep_size),
            token_M=integers(capacity),
            experts_MK=integers(capacity, top_k),
            weights_MK=weights_TK.new_empty(capacity, top_k),
            num_rows=none,
            num_pairs=none,
            num_node_rows=none if peers is None else None,
        )
    choose_kernel[(triton.cdiv(tokens, TOKENS),)](
        logits_TE, bias_E, None if peers is None else peers.experts_TRK, ids_TK, weights_TK, sent_RT, num_node_rows,
        tokens, num_experts, row_block(num_experts), top_k, ep_size,
        groups, min(router.top_groups, groups), router.scoring == "sigmoid", bias_E is not None,
        router.renormalize, router.scaling_factor, NODE_RANKS, TOKENS, peers is not None, row_block(top_k), **NO_FMA,
    )  # fmt: skip
    ends_RT = sent_RT.flatten().cumsum(0, dtype=torch.int32)
    row_TR, token_M, experts_MK = integers(tokens, ep_size), integers(capacity), integers(capacity, top_k)
    weights_MK = torch.empty(capacity, top_k, dtype=torch.float32, device=device)
    chosen = (ids_TK, weights_TK) if peers is None else (peers.experts_TRK, peers.weights_TRK)
    lay_out_kernel[(triton.cdiv(tokens, ROW_TOKENS), ep_size)](
        *chosen, ends_RT, row_TR, token_M, experts_MK, weights_MK, num_pairs, tokens,
        num_experts // ep_size, top_k, row_block(top_k), ep_size, ROW_TOKENS, peers is not None,
    )  # fmt: skip
    return SentRows(
        row_TR=row_TR,
        token_M=token_M,
        experts_MK=experts_MK,
        weights_MK=weights_MK,
        num_rows=ends_RT[-1:],
        num_pairs=num_pairs,
        num_node_rows=num_node_rows if peers is None else None,
    )
