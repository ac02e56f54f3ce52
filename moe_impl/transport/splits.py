"""How ranks that are processes tell each other what comes: rows and pairs by peer, and how the host learns them.

Collectives work on the current stream and on the default process group. Every rank calls them alike and in the same
order: schedules are equal where the numbers of micro-batches are.
"""

import time
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from moe_impl.counts import DEADLINE_S, CountsOverdueError
from moe_impl.rows import Exchange, Learned, SentRows, count_peers

SENT, RECEIVED = 0, 1
ROWS = 0


def exchanged(rows: SentRows) -> Tensor:
    """Counts by peer, on the device: int32 [sent | received, R, rows | pairs]."""
    num_ranks = rows.row_TR.shape[1]
    counts_2R2 = torch.empty(2, num_ranks, 2, dtype=torch.int32, device=rows.row_TR.device)
    if counts_2R2.is_cuda:
        from moe_impl.kernels.count_peers import count_peers as count
    else:
        count = count_peers
    count(rows, counts_2R2[SENT])
    dist.all_to_all_single(counts_2R2[RECEIVED], counts_2R2[SENT])
    return counts_2R2


def learned(rows: SentRows) -> Learned:
    """Ask all ranks; the host waits for the device, so only before anything is timed.

    Buffers have the capacity of the rank with the largest micro-batch: no rank can send more than it has tokens.
    """
    counts_2R2 = exchanged(rows)
    capacity = torch.tensor([rows.capacity], device=counts_2R2.device)
    dist.all_reduce(capacity, dist.ReduceOp.MAX)
    sent_R, received_R = counts_2R2[:, :, ROWS].tolist()
    return Learned(sum(sent_R), Exchange(sent_R, received_R, totals(counts_2R2), int(capacity)))


def totals(counts_2R2: Tensor) -> Tensor:
    """Rows and pairs received from all ranks: int32 [2], on the device."""
    return counts_2R2[RECEIVED].sum(0, dtype=torch.int32)


class PeerSizes:
    """Receive ``exact``: counts are exchanged, then copied to pinned memory, and the host polls for them.

    Nothing is synchronised: other streams keep running. One wait at a time. On a CPU the exchange itself waits, as long
    as the group's time-out allows.
    """

    def __init__(self, ep_size: int, device: torch.device, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._pinned: Tensor | None = None
        if device.type == "cuda":
            self._pinned = torch.empty(2, ep_size, 2, dtype=torch.int32, pin_memory=True)
            self._copied = torch.cuda.Event()

    def wait(self, rows: SentRows) -> SentRows:
        counts_2R2 = exchanged(rows)
        sent_R2, received_R2 = self._on_host(counts_2R2)
        num_sent, pairs_sent = map(sum, zip(*sent_R2, strict=True))
        num_received, pairs_received = map(sum, zip(*received_R2, strict=True))
        exchange = Exchange(
            [peer[ROWS] for peer in sent_R2],
            [peer[ROWS] for peer in received_R2],
            totals(counts_2R2),
            capacity=num_received,
            exact_pairs=pairs_received,
        )
        return replace(rows.trimmed(num_sent, pairs_sent), exchange=exchange)

    def _on_host(self, counts_2R2: Tensor) -> list[list[list[int]]]:
        if self._pinned is None:
            return counts_2R2.tolist()  # type: ignore[no-any-return]
        self._pinned.copy_(counts_2R2, non_blocking=True)
        self._copied.record()
        overdue_s = time.monotonic() + self._deadline_s
        while not self._copied.query():
            if time.monotonic() > overdue_s:
                raise CountsOverdueError(f"no receive counts within {self._deadline_s:g} s: a peer is late")
        return self._pinned.tolist()  # type: ignore[no-any-return]
