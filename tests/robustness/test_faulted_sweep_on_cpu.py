"""A whole sweep of the real worker with faults planted in it, on this CPU: only under ``make soak``, for its time."""

from pathlib import Path

import effort
import pytest
from faulted_sweep import each_fault_cost_its_own_row, swept

FAULTS = {32: "out of memory", 48: "illegal access", 64: "hang", 80: "killed", 96: "not finite"}
REASONS = {
    "out of memory": "MemoryError",
    "illegal access": "worker killed by SIGSEGV, in phase check, variant streams x2 torch",
    "hang": "case_limit of 5 s exceeded without a sign of progress in its last half, in phase check",
    "killed": "worker killed by SIGKILL, in phase check, variant streams x2 torch, last op issued: layer 0 ubatch 0",
    "not finite": "differs from the oracle by nan",
}


@pytest.mark.skipif(not effort.SOAK, reason="half a minute: make soak")
@pytest.mark.timeout(300)
def test_a_fault_costs_its_own_row(tmp_path: Path) -> None:
    each_fault_cost_its_own_row(swept(tmp_path, "cpu", FAULTS, limit_s=5), "cpu", FAULTS, REASONS)
