"""Peers over torch.distributed: joins the group, and does its small talk on CPU tensors over gloo.

The talk has a gloo group of its own also on GPUs, so that it never queues behind device work. Link ``collective`` moves
its rows over the default group, which is NCCL there.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from bench.measure.peers import BACKEND, Peers, Value

LOOPBACK = {"linux": "lo", "darwin": "lo0"}
"""All ranks are processes of one host: gloo need not resolve its name, which fails on hosts without a network."""


class Group(Peers):
    """See :class:`bench.measure.peers.Peers`; :func:`joined` makes it."""

    def __init__(self, talk: Any, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._talk, self._device = talk, device

    def gather(self, value: Value) -> list[Value]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._talk)
        return values

    def first(self, value: float) -> float:
        told = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(told, src=0, group=self._talk)
        return float(told)

    def align(self) -> None:
        # No barrier on the device: it would hide the launch cost of what follows, which is timed (host ``live``).
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        dist.barrier(group=self._talk)


@contextmanager
def joined(rank: int, size: int, rendezvous: Path, device: torch.device, timeout_s: float) -> Iterator[Group]:
    """Be ``rank`` of a group of ``size`` processes of this host that meet at a file.

    Args:
        rendezvous: a path that all of them, and no earlier group, name; the first makes the file.
        device: this rank's own.
        timeout_s: how long a collective, the first meeting included, may wait for a rank.
    """
    if sys.platform in LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    # NVLink multicast brings an all-to-all nothing, and can leave GPUs that virtual machines share in a bad state.
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    timeout = timedelta(seconds=timeout_s)
    dist.init_process_group(
        BACKEND[device.type],
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=size,
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
    yield Group(dist.new_group(backend="gloo", timeout=timeout), device)
    dist.destroy_process_group()  # not after an exception: it would wait for the collectives that are under way
