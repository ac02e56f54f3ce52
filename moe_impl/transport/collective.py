"""Link ``collective``: rows really travel between processes, one a rank, by all-to-all: NCCL on GPUs, gloo on CPUs.

A dispatch packs the rows that it sends, by destination rank, on the current stream, as DeepEP does, and moves them in
one all-to-all; a second one moves each row's local expert ids and weights, int32 [M, 2K]. A combine is one all-to-all
back. Rows to the own rank go the same way. The host sizes all of them: under ``worst_case`` by what it learned before,
though buffers have worst-case capacity, under ``exact`` by what the peers tell it each time.
"""

from dataclasses import replace

import torch
import torch.distributed as dist
from torch import Tensor

from moe_impl.options import Workload
from moe_impl.rows import Exchange, Learned, ReceivedRows, SentRows
from moe_impl.transport import splits


class Collective:
    """Over the default process group; see :class:`moe_impl.transport.base.Transport`.

    Raises:
        ValueError: there is no group of ``ep_size`` ranks.
    """

    host_sized = True

    def __init__(self, workload: Workload) -> None:
        num_ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 0
        if num_ranks != workload.ep_size:
            raise ValueError(f"link collective needs a process group of {workload.ep_size} ranks, got {num_ranks}")
        self._ep_size = workload.ep_size

    def learn(self, rows: SentRows) -> Learned:
        return splits.learned(rows)

    def receive_sizes(self, device: torch.device) -> splits.PeerSizes:
        return splits.PeerSizes(self._ep_size, device)

    def ready(self, rows: SentRows) -> SentRows:
        sizes, K = known(rows), rows.experts_MK.shape[1]
        inbox = ReceivedRows(
            experts_MK=rows.experts_MK.new_empty(sizes.capacity, K),
            weights_MK=rows.weights_MK.new_empty(sizes.capacity, K),
            num_rows=sizes.counts[:1],
            num_pairs=sizes.counts[1:],
            exact_pairs=sizes.exact_pairs,
            known_rows=sum(sizes.received_R),
        )
        return replace(rows, inbox=inbox)

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        sizes, inbox = known(rows), rows.received
        sent, received, K = sum(sizes.sent_R), sum(sizes.received_R), rows.experts_MK.shape[1]
        # What is packed here is written, sent and let go on the current stream.
        travel(packed(sent_TB, rows, sent), received_MB[:received], sizes.sent_R, sizes.received_R)
        carried_MJ = torch.cat((rows.experts_MK[:sent], rows.weights_MK[:sent].view(torch.int32)), 1)
        came_MJ = carried_MJ.new_empty(received, 2 * K)
        travel(carried_MJ, came_MJ, sizes.sent_R, sizes.received_R)
        inbox.experts_MK[:received] = came_MJ[:, :K]
        inbox.weights_MK.view(torch.int32)[:received] = came_MJ[:, K:]

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        sizes = known(rows)
        sent, received = sum(sizes.sent_R), sum(sizes.received_R)
        travel(partial_MH[:received], returned_MH[:sent], sizes.received_R, sizes.sent_R)


def packed(sent_TB: Tensor, rows: SentRows, num_rows: int) -> Tensor:
    """[num_rows, B]: the rows of ``sent_TB`` as they travel."""
    if not sent_TB.is_cuda:
        return sent_TB[rows.token_M[:num_rows].long()]
    from moe_impl.kernels.move_rows import move_rows
    from moe_impl.transport.cuda_rows import words

    packed_MB = sent_TB.new_empty(num_rows, sent_TB.shape[1])
    move_rows(words(sent_TB), words(packed_MB), rows.num_rows, rows.token_M)
    return packed_MB


def travel(source_MB: Tensor, target_MB: Tensor, sent_R: list[int], received_R: list[int]) -> None:
    """One all-to-all of whole rows, as bytes; called also by a rank that has none to send or receive."""
    dist.all_to_all_single(target_MB.view(torch.uint8), source_MB.view(torch.uint8), received_R, sent_R)


def known(rows: SentRows) -> Exchange:
    """The sizes by peer, which the host must know.

    Raises:
        ValueError: it does not.
    """
    if rows.exchange is None:
        raise ValueError("link collective needs row counts by peer that the host knows")
    return rows.exchange
