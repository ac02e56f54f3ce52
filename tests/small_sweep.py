"""A small sweep for tests of the run: cases, a script for the fake worker, and what the workers were asked."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic import CPU

from bench.cases import Case, with_companions
from moe_impl.options import Link, Variant, Workload
from moe_impl.shapes import ModelShape

FAKE_WORKER = (sys.executable, str(Path(__file__).parent / "fake_worker.py"))

SWEEP_FILE = """\
# Question: does the run survive?
schema: 1
case:
  model: {hidden_size: 64, intermediate_size: 64, num_experts: 8, top_k: 2}
  ep_size: 4
  tokens: [16, 32]
  precision: nvfp4-w4a16
  link: local
variants:
  - {experts: torch}
measure: {passes: 2, case_limit: 5 s}
"""


def small_case(tokens: int = 16, experts: tuple[str, ...] = ("torch",), split_factor: int = 2) -> Case:
    """T1, T2s and T2o of each backend; triton is skipped on the made-up CPU."""
    workload = Workload(ModelShape(64, 64, 8, 2), ep_size=4, layers=2, tokens=tokens, precision="nvfp4-w4a16")
    variants = [one for name in experts for one in with_companions(Variant(experts=name, split_factor=split_factor))]
    return Case(workload, Link("local", name="local"), tuple(variants))


class Script:
    """What the fake worker will do; ``workers`` tells what it was asked.

    Attributes:
        machine: what a probe finds where a test needs no process for it.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.log = folder / "fake_worker.json", folder / "workers.jsonl"
        self.machine = CPU
        monkeypatch.setenv("FAKE_WORKER", str(self.path))
        self.write()

    def write(self, *rules: dict[str, Any], **more: Any) -> None:
        self.log.unlink(missing_ok=True)
        self.path.write_text(json.dumps({"log": str(self.log), "rules": rules, **more}))

    @property
    def workers(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]
