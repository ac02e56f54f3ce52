"""Link ``host_link``: rows go out to pinned host memory and come back, on the GPU's two copy engines. Measured.

The rows that the experts read are the rows that came back. No SM takes part in the transfer itself. Dispatch first
packs its rows into a send buffer with a small kernel on the current stream, as DeepEP packs what its NIC sends; that
kernel is part of the dispatch's time. A copy on an engine is issued by the host, which must know its size: here from
``SentRows.known_rows``.
"""

import functools

import torch
from torch import Tensor

from moe_impl.kernels.move_rows import move_rows
from moe_impl.rows import SentRows
from moe_impl.transport.chunks import MOST_CHUNK_BYTES, SLOTS, chunks
from moe_impl.transport.clones import Clones
from moe_impl.transport.cuda_rows import words


class HostLink(Clones):
    """One transfer at a time; it holds both engines. See :class:`moe_impl.transport.base.Transport`.

    Two streams of its own, one an engine, wait for the current stream before the first chunk, and it waits for them
    after the last one; the host waits for nothing. So the caller sees work on its current stream, and memory that the
    current stream may use may be used here too. Slots are handed from one engine to the other by events. No
    transfer waits for an event of the one before, for which its current stream has waited: a graph may hold it.
    """

    host_sized = True

    def __init__(self, device: torch.device) -> None:
        self.ring_SB = pinned_ring()
        """uint8 [SLOTS, MOST_CHUNK_BYTES], pinned: where rows are while they are away."""
        self._out, self._in = engine_streams(device)
        self._begun = torch.cuda.Event()
        self._filled = [torch.cuda.Event() for _ in range(SLOTS)]
        self._emptied = [torch.cuda.Event() for _ in range(SLOTS)]

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        used = known(rows)
        if not used:
            return
        # Allocated, written and let go on the current stream, which by then has waited for the copy that reads it.
        packed_MB = sent_TB.new_empty(used, sent_TB.shape[1])
        move_rows(words(sent_TB), words(packed_MB), rows.num_rows, rows.token_M)
        self._travel(packed_MB, received_MB[:used])

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        used = known(rows)
        if used:
            self._travel(partial_MH[:used], returned_MH[:used])

    def _travel(self, source_MB: Tensor, target_MB: Tensor) -> None:
        """target = source by way of the ring; both contiguous, of equal size, at least one row."""
        current = torch.cuda.current_stream()
        self._begun.record(current)
        self._out.wait_event(self._begun)
        source_B, target_B = (rows_MB.view(-1).view(torch.uint8) for rows_MB in (source_MB, target_MB))
        plan = chunks(source_B.numel())
        try:
            for index, chunk in enumerate(plan):
                staged_B = self.ring_SB[chunk.slot, : chunk.end - chunk.begin]
                filled, emptied = self._filled[chunk.slot], self._emptied[chunk.slot]
                if index >= SLOTS:
                    self._out.wait_event(emptied)
                copy_on(self._out, staged_B, source_B[chunk.begin : chunk.end])
                filled.record(self._out)
                self._in.wait_event(filled)
                copy_on(self._in, target_B[chunk.begin : chunk.end], staged_B)
                emptied.record(self._in)
        finally:
            torch.cuda.set_stream(current)
        current.wait_event(self._emptied[plan[-1].slot])  # the engine keeps order: the last chunk is the last to come


@functools.cache
def engine_streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    """Out and in, one pair a process, for the reason that ``cuda_lanes.comm_stream`` gives."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


def pinned_ring() -> Tensor:
    """uint8 [SLOTS, MOST_CHUNK_BYTES] of host memory that copy engines reach."""
    return torch.empty(SLOTS, MOST_CHUNK_BYTES, dtype=torch.uint8, pin_memory=True)


def copy_on(stream: torch.cuda.Stream, target_B: Tensor, source_B: Tensor) -> None:
    """Queue one copy on a stream, which stays current: a context that restored it would cost microseconds a chunk."""
    torch.cuda.set_stream(stream)
    target_B.copy_(source_B, non_blocking=True)


def known(rows: SentRows) -> int:
    """The number of rows, which the host must know.

    Raises:
        ValueError: it does not.
    """
    if rows.known_rows is None:
        raise ValueError("link host_link needs a row count that the host knows")
    return rows.known_rows
