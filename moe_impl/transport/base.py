"""What a transport is, and the table of them. A transport works on the current stream and knows no engine."""

from typing import Protocol

import torch
from torch import Tensor

from moe_impl.options import Link, Workload
from moe_impl.rows import SentRows


class Transport(Protocol):
    """Moves rows to the ranks that hold their experts, and partial sums back.

    Dispatched rows are bf16 [T, H] or uint8 [T, stored_row_bytes], partial sums bf16.
    """

    host_sized: bool
    """Whether the host issues copies of a size that it must know: ``rows.known_rows``."""

    def dispatch(self, sent_TB: Tensor, rows: SentRows, received_MB: Tensor) -> None:
        """received[m] = x[token of row m], for m below ``rows.num_rows``."""
        ...

    def combine(self, partial_MH: Tensor, rows: SentRows, returned_MH: Tensor) -> None:
        """returned[m] = partial[m], for m below ``rows.num_rows``."""
        ...


def transport(link: Link, workload: Workload, device: torch.device) -> Transport:
    """The transport a link names, on this device; imports kernels only where there is a GPU.

    Raises:
        ValueError: link ``host_link`` on a CPU, which ``support`` refuses before.
    """
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
            case "collective":
                raise NotImplementedError("link collective")
    from moe_impl.transport import cpu_rows

    match link.transport:
        case "local":
            return cpu_rows.LocalCpu()
        case "paced":
            return cpu_rows.PacedCpu(link, workload)
        case "host_link":
            raise ValueError("link host_link needs a CUDA GPU")
        case "collective":
            raise NotImplementedError("link collective")
