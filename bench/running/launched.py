"""Whether a launcher started this process as one of several: torchrun, or srun. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.errors import BenchError

LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    # Of the step: a batch script that srun did not start has the job's SLURM_NTASKS, too.
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"),
}
"""Their variables for this process's rank, the number of processes, and how many of them this host has."""


@dataclass(frozen=True)
class Launched:
    """One of ``size`` processes of this host."""

    by: str
    rank: int
    size: int


def launched(environment: Mapping[str, str]) -> Launched | None:
    """None: started alone.

    Raises:
        BenchError: the processes are not all on this host, or a variable is no number.
    """
    for by, names in LAUNCHERS.items():
        if any(name not in environment for name in names):
            continue
        # srun writes "8" for one node, "8(x2)" or "8,4" for several.
        rank, size, here = (environment[name] for name in names)
        if not (rank.isdecimal() and size.isdecimal()):
            raise BenchError(f"{by}: {names[0]}={rank}, {names[1]}={size}: expected numbers")
        if int(size) == 1:
            return None
        if here != size:
            raise BenchError(f"{by}: {size} processes, {names[2]}={here}: all ranks must be on one host")
        return Launched(by, int(rank), int(size))
    return None


def ranks_asked_for(nproc: int | None, found: Launched | None) -> int:
    """How many ranks a sweep has: ``--nproc``, or as many as a launcher started.

    Raises:
        BenchError: both are given, and differ.
    """
    if found is None:
        return nproc or 1
    if nproc not in (None, found.size):
        raise BenchError(f"--nproc {nproc}: {found.by} started {found.size} processes (leave --nproc away)")
    return found.size
