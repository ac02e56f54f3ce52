"""How fast this GPU copies: within its memory, and to the host and back at once."""

import torch

from bench.doctor.findings import Finding, State
from bench.measure.ceilings import TimeS, copy_bytes_per_s

PCIE_BYTES = 2**28
REPEATS = 5


def memory(device: torch.device, time_s: TimeS) -> Finding:
    """Copy within HBM, bytes read and written both counted."""
    rate = copy_bytes_per_s(device, time_s)
    said = f"{rate / 1e12:.2f} TB/s copying 1 GiB (read and written)"
    return Finding("copy", State.OK, said, {"bytes_per_s": rate})


def pcie(device: torch.device, time_s: TimeS) -> Finding:
    """Pinned host memory: out, in, and both at once, as link ``host_link`` uses them."""
    here = [torch.ones(PCIE_BYTES, dtype=torch.int8, device=device) for _ in range(2)]
    there = [torch.empty(PCIE_BYTES, dtype=torch.int8, pin_memory=True) for _ in range(2)]
    streams = [torch.cuda.Stream(device) for _ in range(2)]

    def out() -> None:
        there[0].copy_(here[0], non_blocking=True)

    def back() -> None:
        here[1].copy_(there[1], non_blocking=True)

    def both() -> None:
        current = torch.cuda.current_stream(device)
        for stream, copy in zip(streams, (out, back), strict=True):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                copy()
            current.wait_stream(stream)

    rates = {
        name: PCIE_BYTES / min(time_s(call) for _ in range(REPEATS))
        for name, call in (("out_bytes_per_s", out), ("in_bytes_per_s", back), ("both_each_way_bytes_per_s", both))
    }
    said = "{:.0f} GB/s out, {:.0f} in, {:.0f} each way at once".format(*(rate / 1e9 for rate in rates.values()))
    return Finding("pcie", State.OK, said, rates)
