"""What a run leaves behind: bytes still allocated after it, by the line of code that allocated them.

A dict that pins tensors, as FastDeploy's ``global_values`` does, shows here. CUDA's caching allocator keeps the
history; torch calls its interface private, so a torch without it answers with no sites.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import torch

HISTORY = 200_000
"""Allocations remembered: more than any iteration makes."""
OURSELVES = ("torch", "triton", "contextlib.py")
"""Frames that only pass an allocation on."""


def live_blocks(snapshot: Mapping[str, Any]) -> dict[int, tuple[int, str]]:
    """address -> (bytes, allocation site) of every block that is allocated in an allocator snapshot."""
    return {
        block["address"]: (block.get("requested_size", block["size"]), site(block.get("frames", ())))
        for segment in snapshot["segments"]
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    }


def site(frames: Any) -> str:
    """``file:line function`` of the innermost frame that is not torch's or triton's, ``unknown`` without one."""
    for frame in frames:
        path = PurePath(frame["filename"])
        if path.suffix == ".py" and not any(name in path.parts for name in OURSELVES):
            return f"{path.name}:{frame['line']} {frame['name']}"
    return "unknown"


def new_blocks(before: Mapping[str, Any], after: Mapping[str, Any]) -> Counter[str]:
    """site -> bytes that are allocated after and were not before."""
    known = live_blocks(before)
    found: Counter[str] = Counter()
    for address, (size, where) in live_blocks(after).items():
        if known.get(address) != (size, where):
            found[where] += size
    return found


def retained_sites(call: Callable[[], object]) -> Counter[str]:
    """site -> bytes that ``call`` leaves allocated on the GPU once what it returned is dropped."""
    if not hasattr(torch.cuda.memory, "_record_memory_history"):
        return Counter()
    torch.cuda.synchronize()
    torch.cuda.memory._record_memory_history(stacks="python", max_entries=HISTORY)
    try:
        before = torch.cuda.memory._snapshot()
        call()
        torch.cuda.synchronize()
        return new_blocks(before, torch.cuda.memory._snapshot())
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


def said(retained_bytes: int, sites: Mapping[str, int]) -> str:
    """A row's flag: how much stays after a step, and the lines that allocated most of it."""
    most = sorted(sites, key=lambda where: -sites[where])[:3]
    named = ", ".join(f"{where} ({sites[where]} bytes)" for where in most) or "unknown"
    return f"retains {retained_bytes} bytes after a step, allocated at {named}"
