"""Which rows travel, and where received rows go: the bookkeeping of expert parallelism on one rank.

Rotated clones stand in for the R - 1 peers: peer p is this rank with expert ids rotated by p * L. So for each token t
and each distinct destination rank r of its ids this rank *receives* one row (t, r), with the local experts e mod L of
the e on rank r: exactly the deduplicated copies that DeepEP sends. What a rank sends therefore equals what it receives.

With skewed routing peers are clones of this rank's tokens alone: peer p's copy of token t chose its own experts
(:class:`PeerChoices`). This rank receives one row (t, p) where some of them are here, and that is what its own token t
gets back: what it sends stands for what it receives there, too, only that peers take the place of destinations.

Everything here is plain torch without a host sync: counts stay on the device, buffers have worst-case capacity, and
what lies past a count is undefined and never read.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moe_impl.options import NODE_RANKS, Copies, WorstCaseLayout


@dataclass(frozen=True)
class Exchange:
    """Sizes of one micro-batch's all-to-all between ranks that are processes, as the host of one rank knows them."""

    sent_R: list[int]
    """Rows that this rank sends to each rank, itself included."""
    received_R: list[int]
    """Rows that come from each rank; they are received in this order."""
    counts: Tensor
    """int32 [2] on the device: rows and pairs received."""
    capacity: int
    """Rows for which receive buffers have room."""
    exact_pairs: int | None = None
    """Pairs received, where buffers are to fit (receive ``exact``)."""


@dataclass(frozen=True)
class Learned:
    """What the host knows of a micro-batch's rows before it routes them, for copies that it sizes."""

    num_rows: int
    exchange: Exchange | None = None


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
        """P': a row has at most as many pairs as this rank has experts; ``per_expert``: each has room for all rows."""
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
    """int32 [T, R]: the position of row (t, r), -1 where token t has no expert on rank r; with skewed routing, where
    peer r's copy of it has none here."""
    token_M: Tensor
    """int32 [M']: the token of each row."""
    num_node_rows: Tensor | None
    """int32 [1]: (token, node) rows, a node being ``NODE_RANKS`` consecutive ranks: what crosses between nodes. None
    with skewed routing, whose peers' other rows nobody lays out."""
    exchange: Exchange | None = None
    """Where ranks are processes, once the host knows it."""
    inbox: ReceivedRows | None = None
    """Where dispatch puts what received rows carry with them; None among clones."""

    def counted(self, copies: Copies) -> Tensor:
        """int32 [1]: rows as a link counts them; only its time depends on them, what moves is ``num_rows``.

        Raises:
            ValueError: node copies of skewed routing, which ``support`` refuses before.
        """
        if copies == "rank":
            return self.num_rows
        if self.num_node_rows is None:
            raise ValueError("skewed routing does not count (token, node) rows")
        return self.num_node_rows

    @property
    def received(self) -> ReceivedRows:
        """The rows that this micro-batch's experts get, valid once they were dispatched."""
        return self if self.inbox is None else self.inbox

    def inbox_tensors(self) -> tuple[Tensor, ...]:
        """What received rows brought with them; among clones nothing that the rows themselves do not hold."""
        if self.inbox is None:
            return ()
        return self.inbox.experts_MK, self.inbox.weights_MK, self.inbox.num_rows, self.inbox.num_pairs

    def knowing(self, learned: Learned) -> "SentRows":
        """The same rows, and what the host learned of them."""
        return replace(self, known_rows=learned.num_rows, exchange=learned.exchange)

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


@dataclass(frozen=True)
class PeerChoices:
    """What each peer's router chose of the experts on this rank, for its own copy of each token: skewed routing."""

    experts_TRK: Tensor
    """int32 [T, R, K]: local expert ids of peer r, ascending, -1 where a slot's expert is elsewhere."""
    weights_TRK: Tensor
    """float32 [T, R, K]: weights of those experts (of others where the id is -1)."""

    def of(self, tokens: slice) -> "PeerChoices":
        """Those of some of the tokens."""
        return PeerChoices(self.experts_TRK[tokens], self.weights_TRK[tokens])


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
    local = num_experts // ep_size
    ranks_R = torch.arange(ep_size, device=ids_TK.device, dtype=torch.int32)
    local_RTK = ids_TK[None] - local * ranks_R[:, None, None]
    experts_RTK = torch.where((local_RTK >= 0) & (local_RTK < local), local_RTK, -1)
    nodes = (experts_RTK >= 0).any(-1).split(NODE_RANKS)
    num_node_rows = torch.stack([ranks_T.any(0).sum(dtype=torch.int32) for ranks_T in nodes]).sum(
        0, True, dtype=torch.int32
    )
    return replace(_lay_out(experts_RTK, weights_TK.expand_as(experts_RTK), capacity), num_node_rows=num_node_rows)


def plan_peer_rows(peers: PeerChoices, capacity: int | None = None) -> SentRows:
    """Lay out one row per (token, peer) whose router chose an expert of this rank, packed by peer, then token.

    Args:
        capacity: M', at least R * T, which is the default.
    """
    return _lay_out(peers.experts_TRK.transpose(0, 1), peers.weights_TRK.transpose(0, 1), capacity)


def _lay_out(experts_RTK: Tensor, weights_RTK: Tensor, capacity: int | None) -> SentRows:
    """One row per (r, t) with an expert, in this order; without node rows."""
    ep_size, T, K = experts_RTK.shape
    device = experts_RTK.device
    capacity = ep_size * T if capacity is None else capacity
    here_RTK = experts_RTK >= 0
    sent_RT = here_RTK.any(-1)
    ends = sent_RT.flatten().cumsum(0, dtype=torch.int32)
    row_RT = (ends - 1).view(ep_size, T)
    # Absent rows are written to one spare row behind the capacity, which no one reads.
    target = torch.where(sent_RT, row_RT, capacity).flatten().long()
    token_M = torch.empty(capacity + 1, dtype=torch.int32, device=device)
    token_M[target] = torch.arange(T, device=device, dtype=torch.int32).repeat(ep_size)
    experts_MK = torch.empty(capacity + 1, K, dtype=torch.int32, device=device)
    experts_MK[target] = experts_RTK.reshape(ep_size * T, K)
    weights_MK = torch.empty(capacity + 1, K, dtype=torch.float32, device=device)
    weights_MK[target] = weights_RTK.reshape(ep_size * T, K)
    row_TR = torch.where(sent_RT, row_RT, -1).t().contiguous()
    num_rows = sent_RT.sum(dtype=torch.int32).view(1)  # not the last end: without tokens there is none
    num_pairs = here_RTK.sum(dtype=torch.int32).view(1)
    return SentRows(
        row_TR=row_TR,
        token_M=token_M[:capacity],
        experts_MK=experts_MK[:capacity],
        weights_MK=weights_MK[:capacity],
        num_rows=num_rows,
        num_pairs=num_pairs,
        num_node_rows=None,
    )


def count_peers(rows: SentRows, counts_R2: Tensor) -> None:
    """counts[r] = rows and pairs that go to rank r, int32 [R, 2], on a CPU."""
    sent_TR = rows.row_TR >= 0
    pairs_TR = (rows.experts_MK[rows.row_TR.clamp(min=0).long()] >= 0).sum(-1)
    counts_R2[:, 0] = sent_TR.sum(0)
    counts_R2[:, 1] = torch.where(sent_TR, pairs_TR, 0).sum(0)


@dataclass(frozen=True)
class Pairs:
    """(row, local expert) pairs sorted by expert, then row: the rows of the grouped GEMMs.

    Capacity P' = M' * min(K, L): a row has at most as many pairs as this rank has experts. Experts' pairs follow one
    another (``packed``), or expert e's begin at e * M' (``per_expert``, P' = L * M': any row may have a pair there).
    """

    ends_L: Tensor
    """int32 [L]: end of each expert's pairs; the last one, where packed, is the number of pairs."""
    row_P: Tensor | None
    """int32 [P']: the received row of each pair, undefined past the ends; None: pair p is row p."""
    pair_MK: Tensor | None
    """int32 [M', K]: where a row's slot went, -1 where it has no expert here; undefined past ``num_rows``. None where
    each row is one pair, which no reduction needs."""
    expert_stride: int | None = None
    """M' in layout ``per_expert``; None: packed."""

    @property
    def starts(self) -> Tensor:
        """int32 [L]: begin of each expert's pairs."""
        if self.expert_stride is None:
            return torch.cat((self.ends_L.new_zeros(1), self.ends_L[:-1]))
        return self.expert_stride * torch.arange(len(self.ends_L), dtype=torch.int32, device=self.ends_L.device)


def plan_pairs(rows: ReceivedRows, local_experts: int, layout: WorstCaseLayout = "packed") -> Pairs:
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
    most = rows.pairs_capacity(local_experts, layout)
    packed = Pairs(ends_L.int(), (order[:most] // K).int(), pair_MK)
    if layout == "packed":
        return packed
    begins_L = torch.arange(local_experts, dtype=torch.int32, device=device) * capacity
    shift_L = begins_L - packed.starts
    expert_MK = torch.where(present_MK, rows.experts_MK, 0).long()
    pair_MK = torch.where(present_MK, pair_MK + shift_L[expert_MK], -1)
    row_P = torch.empty(most + 1, dtype=torch.int32, device=device)  # absent slots go to the spare last place
    row_MK = torch.arange(capacity, dtype=torch.int32, device=device)[:, None].expand(capacity, K)
    row_P[torch.where(present_MK, pair_MK, most).long()] = row_MK
    return Pairs(packed.ends_L + shift_L, row_P[:most], pair_MK, capacity)


def gather_pairs(received_MH: Tensor, pairs: Pairs) -> Tensor:
    """Stage ``permute`` on a CPU: [M', H] to [P', H]; rows past the last pair are undefined."""
    if pairs.row_P is None:
        return received_MH
    permuted_PH = received_MH.new_empty(pairs.row_P.shape[0], received_MH.shape[1])
    for start, end in zip(pairs.starts.tolist(), pairs.ends_L.tolist(), strict=True):
        permuted_PH[start:end] = received_MH[pairs.row_P[start:end].long()]
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
        here_T = row_T >= 0
        total_TH[here_T] += returned_MH[row_T[here_T]].float()
    if shared_TH is not None:
        total_TH += shared_TH.float()
    y_TH = total_TH.to(x_TH.dtype)
    return y_TH, add_normalized(x_TH, y_TH)


def add_normalized(x_TH: Tensor, y_TH: Tensor) -> Tensor:
    """bf16(x + y / rms(y)) on a CPU, in fp32, rms over H; x where a token's y is all zero."""
    y32_TH = y_TH.float()
    rms_T1 = y32_TH.square().mean(-1, keepdim=True).sqrt()
    step_TH = torch.where(rms_T1 == 0, 0.0, y32_TH / rms_T1)  # NaN stays NaN
    return (x_TH.float() + step_TH).to(x_TH.dtype)
