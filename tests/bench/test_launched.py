"""Which launcher started a process, and how many ranks a sweep then has."""

import pytest

from bench.errors import BenchError
from bench.running.launched import Launched, launched, ranks_asked_for

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "8"}


def test_torchrun_and_srun_are_told_by_their_variables() -> None:
    assert launched(TORCHRUN) == Launched("torchrun", 1, 4)
    assert launched(SRUN) == Launched("srun", 3, 8)
    assert launched({"PATH": "/bin"}) is None


def test_a_batch_script_that_srun_did_not_start_is_one_process() -> None:
    assert launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_TASKS_PER_NODE": "8"}) is None


def test_one_process_is_alone_whoever_started_it() -> None:
    assert launched(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}) is None


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (TORCHRUN | {"WORLD_SIZE": "8"}, "torchrun: 8 processes, LOCAL_WORLD_SIZE=4: all ranks must be on one host"),
        (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, "srun: 8 processes, SLURM_STEP_TASKS_PER_NODE=4(x2): "),
        (TORCHRUN | {"RANK": "one"}, "torchrun: RANK=one, WORLD_SIZE=4: expected numbers"),
    ],
)
def test_what_cannot_be_joined_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(BenchError) as refused:
        launched(environment)
    assert str(refused.value).startswith(said)


def test_a_launcher_says_how_many_ranks_and_nproc_must_not_contradict_it() -> None:
    assert ranks_asked_for(None, None) == 1
    assert ranks_asked_for(2, None) == 2
    assert ranks_asked_for(None, launched(TORCHRUN)) == 4
    assert ranks_asked_for(4, launched(TORCHRUN)) == 4
    with pytest.raises(BenchError, match="--nproc 2: torchrun started 4 processes"):
        ranks_asked_for(2, launched(TORCHRUN))
