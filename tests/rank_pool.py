"""Processes of one group, one a rank, that run tests' functions: started once, asked many times."""

import multiprocessing
import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ANSWER_S = 60.0
"""Far beyond what a test computes; a rank that failed leaves its peers in a collective."""


class RanksFailedError(AssertionError):
    """What the ranks said that did not do what they were asked."""


class RankPool:
    """``size`` processes, which end with the context: on the CPU (gloo), or each on a GPU of its own (nccl)."""

    def __init__(self, size: int, folder: Path, backend: str = "gloo") -> None:
        self.size, self.broken = size, False
        spawn = multiprocessing.get_context("spawn")
        self._processes, self._pipes = [], []
        for rank in range(size):
            mine, its = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(rank, size, folder / "meeting", backend, its), daemon=True)
            process.start()
            its.close()
            self._processes.append(process)
            self._pipes.append(mine)

    def __enter__(self) -> "RankPool":
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()

    def call(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """``function(rank, *args)`` on every rank, by rank; a function of a test's module, which ranks import.

        Raises:
            RanksFailedError: one raised, or did not answer.
        """
        assert not self.broken, "ranks may still be waiting for each other, in a test before this one"
        for pipe in self._pipes:
            pipe.send((function, args))
        said, results = [], []
        for rank, pipe in enumerate(self._pipes):
            # Where one failed the others wait for it: they get a moment, in case they failed too.
            if not pipe.poll(1.0 if said else ANSWER_S):
                said.append(f"rank {rank}: no answer")
                continue
            ok, result = pipe.recv()
            results.append(result)
            if not ok:
                said.append(f"rank {rank}: {result}")
        if said:
            self.broken = True
            raise RanksFailedError("\n".join(said))
        return results


def join_group(rank: int, size: int, meeting: Path, backend: str) -> None:
    """Be one rank of the default process group; under nccl on GPU ``rank``."""
    import torch
    import torch.distributed as dist

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # hosts without a network resolve no name
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # NVLink multicast upsets GPUs that virtual machines share
    device = None
    if backend == "nccl":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend,
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=ANSWER_S),
        device_id=device,
    )


def _serve(rank: int, size: int, meeting: Path, backend: str, pipe: Connection) -> None:
    """A rank's whole life."""
    import torch

    join_group(rank, size, meeting, backend)
    if backend == "gloo":
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)  # torch.empty gives NaN: what is undefined and read shows
    while True:
        function, args = pipe.recv()
        try:
            pipe.send((True, function(rank, *args)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
