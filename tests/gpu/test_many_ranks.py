"""``bench sweep --nproc 2`` on two GPUs: NCCL between them, and what follows when one process is gone."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from two_ranks import other_rank_at_work, start, trials

from bench.errors import Exit
from bench.results import Status

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

CASE = "model: {hidden_size: 1024, intermediate_size: 512, num_experts: 32, top_k: 4}"


def test_two_gpus_measure_every_case_together(tmp_path: Path) -> None:
    case = f"{CASE}, tokens: [3, 515], precision: [bf16, nvfp4-w4a16]"
    sweep = start(
        tmp_path, "cuda", case, "engine: [streams, threads], receive: [worst_case, exact], split_factor: [2, 3]"
    )
    out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == Exit.DONE, err
    assert "measured comm (NCCL all-to-all)" in " ".join(out.split())
    found = trials(tmp_path)
    assert len(found) == 4
    for trial in found:
        assert (trial.machine.device, trial.machine.ranks) == ("cuda", 2)
        assert trial.traffic is not None
        for m in trial.measurements:
            assert (m.status, m.reason) == (Status.OK, None)
            assert m.check is not None
            assert m.check.passed
            assert m.spread is None or m.spread.largest_difference == 0
            assert m.rank_skew is not None
            assert 0 <= m.rank_skew < 1
            assert m.memory is not None
            assert m.memory.retained_bytes == 0, m.flags
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["group"] == {"nproc": 2, "backend": "nccl"}
    assert environment["nccl"].startswith("2.")


def test_a_gpu_whose_process_is_killed_leaves_no_one_waiting(tmp_path: Path) -> None:
    sweep = start(
        tmp_path, "cuda", f"{CASE}, tokens: [64, 515], precision: bf16", "split_factor: 2", round_min="500 ms"
    )
    try:
        os.kill(other_rank_at_work(sweep, tmp_path), signal.SIGKILL)
        _, err = sweep.communicate(timeout=200)
    finally:
        sweep.kill()
    assert sweep.returncode == Exit.FAILED_CASES, err
    first, second = trials(tmp_path)
    failed = [m for m in first.measurements if m.status is Status.ERROR]
    assert failed
    assert all((m.reason or "").startswith("rank 1 killed by SIGKILL") for m in failed)
    assert {m.status for m in second.measurements} == {Status.OK}
