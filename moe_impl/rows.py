"""Which rows travel, and where received rows go: the bookkeeping of expert parallelism on one rank.

Rotated clones stand in for the R - 1 peers: peer p is this rank with expert ids rotated by p * L. So for each token t
and each distinct destination rank r of its ids this rank *receives* one row (t, r), with the local experts e mod L of
the e on rank r: exactly the deduplicated copies that DeepEP sends. What a rank sends therefore equals what it receives.

Everything here is plain torch without a host sync: counts stay on the device, buffers have worst-case capacity, and
what lies past a count is undefined and never read.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moe_impl.options import NODE_RANKS, Copies, WorstCaseLayout


@dataclass(frozen=True, kw_only=True)
class ReceivedRows:
    """Rows at the rank that holds their experts: capacity M', of which ``num_rows`` count."""

    experts_MK: Tensor
    """int32 [M', K]: local expert ids in ascending order of the global id, -1 where a slot's expert is elsewhere."""
    weights_MK: Tensor
    """float32 [M', K]: weights of those experts (undefined where the id is -1)."""
    num_rows: Tensor
    """int32 [1]."""
    num_pairs: Tensor
    """int32 [1]: (row, local expert) pairs of those rows."""
    exact_pairs: int | None = None
    """The same, where the host knows it (receive ``exact``)."""
    known_rows: int | None = None
    """``num_rows``, where the host knows it: learned (receive ``exact``) or drawn before (``MoeStages.learn_rows``)."""

    @property
    def capacity(self) -> int:
        return int(self.experts_MK.shape[0])

    def pairs_capacity(self, local_experts: int, layout: WorstCaseLayout = "packed") -> int:
        """P': a row has at most as many pairs as this rank has experts; ``per_expert``: each expert has room for all."""
        if layout == "per_expert":
            return self.capacity * local_experts
        if self.exact_pairs is not None:
            return self.exact_pairs
        return self.capacity * min(int(self.experts_MK.shape[1]), local_experts)


@dataclass(frozen=True, kw_only=True)
class SentRows(ReceivedRows):
    """A micro-batch's rows, packed by destination rank, then token: capacity M' is R * T or more.

    Among clones they are the received rows, too.
    """

    row_TR: Tensor
    """int32 [T, R]: the position of row (t, r), -1 where token t has no expert on rank r."""
    token_M: Tensor
    """int32 [M']: the token of each row."""
    num_node_rows: Tensor
    """int32 [1]: (token, node) rows, a node being ``NODE_RANKS`` consecutive ranks: what crosses between nodes."""

    def counted(self, copies: Copies) -> Tensor:
        """int32 [1]: rows as a link counts them; only its time depends on them, what moves is ``num_rows``."""
        return self.num_node_rows if copies == "node" else self.num_rows

    def trimmed(self, num_rows: int, num_pairs: int) -> "SentRows":
        """The same rows with capacities cut to the counts, once the host knows them: views, nothing is copied."""
        return replace(
            self,
            token_M=self.token_M[:num_rows],
            experts_MK=self.experts_MK[:num_rows],
            weights_MK=self.weights_MK[:num_rows],
            exact_pairs=num_pairs,
            known_rows=num_rows,
        )


def plan_rows(
    ids_TK: Tensor, weights_TK: Tensor, num_experts: int, ep_size: int, capacity: int | None = None
) -> SentRows:
    """Lay out one row per (token, distinct destination rank).

    Args:
        ids_TK: int32 [T, K], ascending within a token.
        weights_TK: float32 [T, K].
        num_experts: E.
        ep_size: R, a divisor of E.
        capacity: M', at least R * T, which is the default.
    """
    T, K = ids_TK.shape
    device = ids_TK.device
    local = num_experts // ep_size
    capacity = ep_size * T if capacity is None else capacity
    ranks_R = torch.arange(ep_size, device=device, dtype=torch.int32)
    local_RTK = ids_TK[None] - local * ranks_R[:, None, None]
    here_RTK = (local_RTK >= 0) & (local_RTK < local)
    sent_RT = here_RTK.any(-1)
    ends = sent_RT.flatten().cumsum(0, dtype=torch.int32)
    row_RT = (ends - 1).view(ep_size, T)
    # Absent rows are written to one spare row behind the capacity, which no one reads.
    target = torch.where(sent_RT, row_RT, capacity).flatten().long()
    token_M = torch.empty(capacity + 1, dtype=torch.int32, device=device)
    token_M[target] = torch.arange(T, device=device, dtype=torch.int32).repeat(ep_size)
    experts_MK = torch.empty(capacity + 1, K, dtype=torch.int32, device=device)
    experts_MK[target] = torch.where(here_RTK, local_RTK, -1).view(ep_size * T, K)
    weights_MK = torch.empty(capacity + 1, K, dtype=torch.float32, device=device)
    weights_MK[target] = weights_TK.repeat(ep_size, 1)
    row_TR = torch.where(sent_RT, row_RT, -1).t().contiguous()
    num_rows = sent_RT.sum(dtype=torch.int32).view(1)  # not the last end: without tokens there is none
    num_pairs = here_RTK.sum(dtype=torch.int32).view(1)
    nodes = sent_RT.split(NODE_RANKS)
    num_node_rows = torch.stack([ranks_T.any(0).sum(dtype=torch.int32) for ranks_T in nodes]).sum(
        0, True, dtype=torch.int32
    )
    return SentRows(
        row_TR=row_TR,
        token_M=token_M[:capacity],
        experts_MK=experts_MK[:capacity],
        weights_MK=weights_MK[:capacity],
        num_rows=num_rows,
        num_pairs=num_pairs,
        num_node_rows=num_node_rows,
    )


@dataclass(frozen=True)
class Pairs:
    """(row, local expert) pairs sorted by expert, then row: the rows of the grouped GEMMs.

    Capacity P' = M' * min(K, L): a row has at most as many pairs as this rank has experts.
    """

    ends_L: Tensor
    """int32 [L]: end of each expert's pairs; the last one is the number of pairs."""
    row_P: Tensor | None
    """int32 [P']: the received row of each pair, undefined past the last end; None: pair p is row p."""
    pair_MK: Tensor | None
    """int32 [M', K]: where a row's slot went, -1 where it has no expert here; undefined past ``num_rows``. None where
    each row is one pair, which no reduction needs."""


def plan_pairs(rows: ReceivedRows, local_experts: int) -> Pairs:
    """Counting sort of the received rows' slots by local expert, stable in row and slot."""
    capacity, K = rows.experts_MK.shape
    device = rows.experts_MK.device
    received_M = torch.arange(capacity, device=device, dtype=torch.int32) < rows.num_rows
    present_MK = received_M[:, None] & (rows.experts_MK >= 0)
    keys = torch.where(present_MK, rows.experts_MK, local_experts).flatten()
    order = torch.sort(keys, stable=True).indices
    ends_L = torch.searchsorted(keys[order], torch.arange(local_experts, device=device, dtype=torch.int32), right=True)
    pair = torch.empty(capacity * K, dtype=torch.int32, device=device)
    pair[order] = torch.arange(capacity * K, device=device, dtype=torch.int32)
    pair_MK = torch.where(present_MK, pair.view(capacity, K), -1)
    most = rows.pairs_capacity(local_experts)
    return Pairs(ends_L.int(), (order[:most] // K).int(), pair_MK)


def gather_pairs(received_MH: Tensor, pairs: Pairs) -> Tensor:
    """Stage ``permute`` on a CPU: [M', H] to [P', H]; rows past the last pair are undefined."""
    if pairs.row_P is None:
        return received_MH
    used = int(pairs.ends_L[-1])
    permuted_PH = received_MH.new_empty(pairs.row_P.shape[0], received_MH.shape[1])
    permuted_PH[:used] = received_MH[pairs.row_P[:used].long()]
    return permuted_PH


def reduce_rows(outputs_PH: Tensor, pairs: Pairs, rows: ReceivedRows, partial_MH: Tensor) -> None:
    """Stage ``reduce`` on a CPU: fp32 sum of weight * expert output in ascending expert id, rounded once to bf16."""
    assert pairs.pair_MK is not None
    used = int(rows.num_rows)
    total_MH = torch.zeros(used, partial_MH.shape[1], dtype=torch.float32)
    for slot in range(pairs.pair_MK.shape[1]):
        pair_M = pairs.pair_MK[:used, slot].long()
        term_MH = rows.weights_MK[:used, slot, None] * outputs_PH[pair_M.clamp(min=0)].float()
        total_MH = torch.where(pair_M[:, None] >= 0, total_MH + term_MH, total_MH)
    partial_MH[:used] = total_MH.to(partial_MH.dtype)


def merge_rows(
    x_TH: Tensor, returned_MH: Tensor, rows: SentRows, shared_TH: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Stage ``merge`` on a CPU: y = fp32 total over ranks 0..R-1 and then the shared experts' output, rounded once;
    next x = bf16(x + y / rms(y))."""
    total_TH = torch.zeros(x_TH.shape, dtype=torch.float32)
    for rank in range(rows.row_TR.shape[1]):
        row_T = rows.row_TR[:, rank].long()
        part_TH = returned_MH[row_T.clamp(min=0)].float()
        total_TH = torch.where(row_T[:, None] >= 0, total_TH + part_TH, total_TH)
    if shared_TH is not None:
        total_TH += shared_TH.float()
    y_TH = total_TH.to(x_TH.dtype)
    y32_TH = y_TH.float()
    rms_T1 = y32_TH.square().mean(-1, keepdim=True).sqrt()
    step_TH = torch.where(rms_T1 > 0, y32_TH / rms_T1, 0.0)
    return y_TH, (x_TH.float() + step_TH).to(x_TH.dtype)
