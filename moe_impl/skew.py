"""Skewed routing: what all R peers choose, and which of them this GPU plays. Drawn before anything is timed.

Among rotated clones (:mod:`moe_impl.rows`) every rank receives the same, however popular its experts are. So here every
peer draws its own logits, from the generators that real ranks of link ``collective`` draw theirs from, and this GPU
plays one rank N of them: it receives the rows that peers' tokens bring to N's experts. Values are still this rank's
own: peer p's token t carries this rank's x of token t, so no row needs another rank. Compute and bytes are those that
rank N receives; the link is charged with them both ways, where N itself would send T tokens' copies and get those back.

The logits of a layer are log p + Gumbel noise, and the K largest of those are K experts drawn one after the other,
without replacement, in proportion to p (Kool et al., ICML 2019, arXiv:1903.06059, section 2.3). ``hotspot`` draws even
logits and, in a share of the tokens, swaps the hot expert's with the largest: the rest stay even.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_impl.options import SkewedRouting, Workload
from moe_impl.routing import select_experts
from moe_impl.rows import PeerChoices
from moe_impl.shapes import Router
from moe_impl.weights import generator

POPULARITY = 3
"""Generator of which experts are popular, one for all ranks."""
RANKS = 700_000
"""Generators of what each rank draws for itself begin here; rank 0's are those of a rank without peers."""


def own_generators(rank: int | None) -> tuple[int, int]:
    """Those of a rank's x and logits; None: of a rank without peers."""
    own = RANKS + 2 * rank if rank else 0
    return own, own + 1


@dataclass(frozen=True)
class Peers:
    """The group that a skewed routing makes, seen from the rank that this GPU plays."""

    rank: int
    """N."""
    choices: tuple[PeerChoices, ...]
    """By layer, of rank N's experts alone: T * R * K * 8 bytes each."""
    rank_rows: tuple[float, ...]
    """[R] rows that each rank receives in a layer, mean over layers."""


def skewed_logits(workload: Workload, routing: SkewedRouting, device: torch.device, rank: int | None) -> Tensor:
    """float32 [layers, T, E] of one rank.

    Layer by layer: the popular experts are the same in all ranks, and others in every layer.
    """
    tokens, experts = workload.tokens, workload.model.num_experts
    shared = generator(device, workload.seed, POPULARITY)
    own = generator(device, workload.seed, own_generators(rank)[1])
    logits_LTE = torch.empty(workload.layers, tokens, experts, device=device)
    for logits_TE in logits_LTE:
        order_E = torch.randperm(experts, generator=shared, device=device)
        logits_TE.exponential_(generator=own).log_().neg_()
        if routing.kind == "zipf":
            places_E = torch.arange(1, experts + 1, device=device)
            log_p_E = torch.empty(experts, device=device)
            log_p_E[order_E] = torch.log_softmax(-routing.amount * places_E.log(), 0)
            logits_TE += log_p_E
        else:
            chosen_T = torch.rand(tokens, generator=own, device=device) < routing.amount
            _lift(logits_TE, chosen_T.nonzero()[:, 0], order_E[0])
    return logits_LTE


def _lift(logits_TE: Tensor, tokens_S: Tensor, hot: Tensor) -> None:
    """Swap the hot expert's logit with the token's largest, in some tokens."""
    best_S, best_expert_S = logits_TE[tokens_S].max(-1)
    logits_TE[tokens_S, best_expert_S] = logits_TE[tokens_S, hot]
    logits_TE[tokens_S, hot] = best_S


def draw_peers(workload: Workload, routing: SkewedRouting, router: Router, device: torch.device) -> Peers:
    """Let every rank choose, count who receives how much, and keep what comes to the rank that is played.

    Holds all ranks' choices meanwhile: layers * T * R * K * 8 bytes.
    """
    R, K = workload.ep_size, workload.model.top_k
    sizes = (workload.layers, workload.tokens, R, K)
    ids_LTRK = torch.empty(sizes, dtype=torch.int32, device=device)
    weights_LTRK = torch.empty(sizes, device=device)
    for peer in range(R):
        for layer, logits_TE in enumerate(skewed_logits(workload, routing, device, peer)):
            ids_LTRK[layer, :, peer], weights_LTRK[layer, :, peer] = select_experts(logits_TE, router, K)
    rows_R, pairs_R = _received(ids_LTRK // workload.local_experts, R)
    rank = _played(routing, rows_R, pairs_R)
    local_LTRK = ids_LTRK - rank * workload.local_experts
    here_LTRK = (local_LTRK >= 0) & (local_LTRK < workload.local_experts)
    experts_LTRK = torch.where(here_LTRK, local_LTRK, -1)
    choices = tuple(PeerChoices(*layer) for layer in zip(experts_LTRK, weights_LTRK, strict=True))
    return Peers(rank, choices, tuple(rows / workload.layers for rows in rows_R))


def _received(ranks_LTRK: Tensor, num_ranks: int) -> tuple[list[int], list[int]]:
    """Rows and pairs that each rank receives, over all layers, given the rank of every choice."""
    here = [ranks_LTRK == rank for rank in range(num_ranks)]
    return [int(one.any(-1).sum()) for one in here], [int(one.sum()) for one in here]


def _played(routing: SkewedRouting, rows_R: list[int], pairs_R: list[int]) -> int:
    """N; of ranks that fit alike the lowest."""
    ranks = range(len(rows_R))
    if routing.rank == "hottest":
        return max(ranks, key=lambda rank: pairs_R[rank])
    if routing.rank == "mean":
        return min(ranks, key=lambda rank: abs(len(rows_R) * rows_R[rank] - sum(rows_R)))
    return routing.rank
