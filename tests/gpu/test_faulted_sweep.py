"""A night's faults in one sweep on a real GPU: each costs its own row and a worker, and every other case is measured.

About a minute, so only under ``make soak``: every fault but the last is followed by a fresh process, and a hang by the
case's time limit.
"""

from pathlib import Path

import effort
import pytest
from faulted_sweep import each_fault_cost_its_own_row, swept

pytestmark = pytest.mark.gpu

FAULTS = {32: "out of memory", 48: "illegal access", 64: "hang", 80: "compile failure", 96: "not finite"}
REASONS = {
    "out of memory": "OutOfMemoryError: CUDA out of memory",
    "illegal access": "an illegal memory access was encountered",
    "hang": "case_limit of 20 s exceeded without a sign of progress in its last half, in phase check, variant streams",
    "compile failure": "Compil",
    "not finite": "differs from the oracle by nan",
}


@pytest.mark.skipif(not effort.SOAK, reason="a minute: make soak")
@pytest.mark.timeout(300)
def test_a_fault_costs_its_own_row(tmp_path: Path) -> None:
    each_fault_cost_its_own_row(swept(tmp_path, "cuda", FAULTS, limit_s=20), "cuda", FAULTS, REASONS)
