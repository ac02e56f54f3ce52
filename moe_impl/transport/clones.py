"""What the links of one process share: their peers are rotated clones of this rank (:mod:`moe_impl.rows`)."""

import torch

from moe_impl.counts import Counts, counts_for
from moe_impl.rows import Learned, SentRows


class OwnSizes:
    """What this rank sends is what it receives; see :class:`moe_impl.transport.base.ReceiveSizes`."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def wait(self, rows: SentRows) -> SentRows:
        return rows.trimmed(*self._counts.wait(rows))


class Clones:
    """The part of a transport that asks no one; see :class:`moe_impl.transport.base.Transport`."""

    host_sized = False

    def learn(self, rows: SentRows) -> Learned:
        return Learned(int(rows.num_rows))

    def receive_sizes(self, device: torch.device) -> OwnSizes:
        return OwnSizes(counts_for(device))

    def ready(self, rows: SentRows) -> SentRows:
        return rows
