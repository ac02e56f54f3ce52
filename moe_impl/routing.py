"""From router logits to experts: the top-k of a model's own router, in plain torch without a host sync."""

import torch
from torch import Tensor

from moe_impl.shapes import Router

RENORMALIZE_EPS = 1e-20
"""Added to the sum of the K weights, as in DeepSeek-V3's modeling code."""


def select_experts(
    logits_TE: Tensor, router: Router, top_k: int, selection_bias_E: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose each token's experts and weigh them, as DeepSeek-V3's gate does.

    Scores are softmax or sigmoid over all E. The bias and the limit to the best groups (by the sum of a group's two
    best biased scores) decide which experts are chosen; the weights are the chosen experts' unbiased scores. Ties go
    to the lower id (or group), and a token's result does not depend on the tokens beside it, so a micro-batch routes
    as it would inside the whole batch.

    Args:
        logits_TE: float32 (or float64, for golden cases) [T, E].
        router: scoring, groups, renormalisation and scaling.
        top_k: K, at most the experts of ``router.top_groups`` groups.
        selection_bias_E: the bias, given exactly where the router selects with one.

    Returns:
        ids_TK int32, ascending within a token, and weights_TK in the logits' dtype.

    Raises:
        ValueError: logits of another rank or dtype, E not divisible into the groups, K too large, a bias missing or
            not wanted.
    """
    if logits_TE.dim() != 2 or logits_TE.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"logits must be [T, E] float32 or float64, got {tuple(logits_TE.shape)} {logits_TE.dtype}")
    num_experts = logits_TE.shape[1]
    if num_experts % router.num_groups:
        raise ValueError(f"{num_experts} experts do not form {router.num_groups} equal groups")
    selectable = num_experts // router.num_groups * router.top_groups
    if not 1 <= top_k <= selectable:
        raise ValueError(f"top_k must lie in 1..{selectable}, got {top_k}")
    if router.selection_bias != (selection_bias_E is not None):
        given = "none" if selection_bias_E is None else "one"
        raise ValueError(f"the router's selection_bias is {router.selection_bias}, but {given} was given")

    scores_TE = _scores(logits_TE, router)
    biased_TE = scores_TE if selection_bias_E is None else scores_TE + selection_bias_E
    if router.top_groups < router.num_groups:
        biased_TE = _within_best_groups(biased_TE, router)
    ids_TK = _best(biased_TE, top_k).sort(dim=-1).values
    weights_TK = scores_TE.gather(1, ids_TK)
    if router.renormalize:
        # A sum of K fp32 numbers in fp64 does not depend on the order in which a device adds.
        total_T1 = weights_TK.sum(-1, keepdim=True, dtype=torch.float64) + RENORMALIZE_EPS
        weights_TK = weights_TK / total_T1.to(weights_TK.dtype)
    if router.scaling_factor != 1.0:
        weights_TK = weights_TK * router.scaling_factor
    return ids_TK.int(), weights_TK


def _scores(logits_TE: Tensor, router: Router) -> Tensor:
    # In fp64 and rounded, as the kernel does: with a bias a last bit of fp32 may decide who is chosen, and torch's fp32
    # sigmoid on a CPU has another last bit at the end of a tensor than in its middle.
    wide_TE = logits_TE.double()
    scores_TE = torch.softmax(wide_TE, -1) if router.scoring == "softmax" else torch.sigmoid(wide_TE)
    return scores_TE.to(logits_TE.dtype)


def _best(scores: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` largest in each row; unlike topk's, ties are decided: the lower position first."""
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices[:, :count]


def _within_best_groups(biased_TE: Tensor, router: Router) -> Tensor:
    """Scores with -inf for every expert outside the token's best groups."""
    groups_TGE = biased_TE.unflatten(1, (router.num_groups, -1))
    group_scores_TG = groups_TGE.topk(min(2, groups_TGE.shape[-1]), dim=-1).values.sum(-1)
    excluded_TG = torch.ones_like(group_scores_TG, dtype=torch.bool)
    excluded_TG.scatter_(1, _best(group_scores_TG, router.top_groups), False)
    return groups_TGE.masked_fill(excluded_TG[..., None], -torch.inf).flatten(1)
