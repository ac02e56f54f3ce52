"""What a transport is, and the table of them. A transport works on the current stream and knows no engine."""

from typing import Protocol

import torch
from torch import Tensor

from moe_impl.options import Link, Workload
from moe_impl.rows import Learned, SentRows


class ReceiveSizes(Protocol):
    """What receive ``exact`` asks before each dispatch, on the current (communication) stream."""

    def wait(self, rows: SentRows) -> SentRows:
        """The same rows, cut to counts that the host waited for.

        Raises:
            CountsOverdueError: they did not come in time.
        """
        ...


class Transport(Protocol):
    """Moves rows to the ranks that hold their experts, and partial sums back.

    Dispatched rows are bf16 [T, H] or uint8 [T, stored_row_bytes], partial sums bf16. A micro-batch's rows pass
    ``SentRows.knowing`` what was learned (where ``host_sized``, under ``worst_case``) or ``ReceiveSizes.wait`` (under
    ``exact``), then :meth:`ready`, then :meth:`dispatch`.
    """

    host_sized: bool
    """Whether the host issues copies whose sizes it must know."""

    def learn(self, rows: SentRows) -> Learned:
        """Before anything is timed: what the host must know in order to send these rows. All ranks ask alike."""
        ...

    def receive_sizes(self, device: torch.device) -> ReceiveSizes:
        """What tells the host how much it receives."""
        ...

    def ready(self, rows: SentRows) -> SentRows:
        """The same rows, and room, allocated on the current stream, for what received rows carry with them."""
        ...

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        """received[m] = x[token of row m], for m below ``rows.received.num_rows``; fills ``rows.received``, too.

        Rows are received by source rank, then in the order in which they were packed there.
        """
        ...

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        """returned[m] = the partial sum of sent row m, for m below ``rows.num_rows``."""
        ...


def transport(link: Link, workload: Workload, device: torch.device) -> Transport:
    """The transport a link names, on this device; imports kernels only where there is a GPU.

    Raises:
        ValueError: link ``host_link`` on a CPU, which ``support`` refuses before; link ``collective`` outside a process
            group of ``ep_size`` ranks.
    """
    if link.transport == "collective":
        from moe_impl.transport.collective import Collective

        return Collective(workload)
    if device.type == "cuda":
        from moe_impl.transport import cuda_rows

        match link.transport:
            case "local":
                return cuda_rows.LocalCuda()
            case "paced":
                return cuda_rows.PacedCuda(link, workload, device)
            case "host_link":
                from moe_impl.transport.host_link import HostLink

                return HostLink(device)
    from moe_impl.transport import cpu_rows

    match link.transport:
        case "local":
            return cpu_rows.LocalCpu()
        case "paced":
            return cpu_rows.PacedCpu(link, workload)
        case "host_link":
            raise ValueError("link host_link needs a CUDA GPU")
