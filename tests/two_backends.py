"""Two fakes for the backends that ``experts: auto`` may become, on a CPU: torch's, slower or spoiled as asked.

Run as a program it is the real worker with them; the file that TWO_BACKENDS names holds a list, one entry a pass (the
last one for all that follow), of {BACKEND: WHAT}, see :class:`Fake`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import torch

from bench import targets, worker
from bench.pass_runner import CaseRun
from bench.results import Trial
from moe_impl import support
from moe_impl.experts.torch_backend import DenseExperts, TorchExperts
from moe_impl.options import BackendName, Precision
from moe_impl.state import UbatchState

What = Literal["fast", "slow", "wrong", "raises"]
NAP_S = 0.01
"""What ``slow`` adds to each layer of each micro-batch."""


class Fake(TorchExperts):
    """Torch's experts; ``slow`` naps, ``wrong`` doubles its outputs, ``raises`` does not run."""

    ran: ClassVar[list[BackendName]] = []
    """Which ones' gemm2 ran since ``install``, in order."""

    def __init__(self, name: BackendName, what: What) -> None:
        self.name, self.what = name, what

    def gemm2(self, prepared: DenseExperts, state: UbatchState) -> None:
        super().gemm2(prepared, state)
        self.ran.append(self.name)
        assert state.outputs_PH is not None
        if self.what == "slow":
            time.sleep(NAP_S)
        if self.what == "wrong":
            state.outputs_PH *= 2
        if self.what == "raises":
            raise RuntimeError("no such kernel\nand pages of its code")


def install(fakes: dict[str, What], replace: Callable[[object, str, object], None] = setattr) -> None:
    """All that are named may be chosen, and run as the fakes."""

    def backend(name: BackendName, precision: Precision, pairs_per_token: float, capability: object = None) -> Fake:
        return Fake(name, fakes[name])

    Fake.ran.clear()
    replace(targets, "backend", backend)
    replace(support, "choices", lambda workload, link, variants, machine: tuple(fakes))


def install_by_pass(by_pass: list[dict[str, What]]) -> None:
    """Each case in turn gets those of its pass."""
    trial = CaseRun.trial

    def with_fakes(self: CaseRun) -> Trial:
        install(by_pass[min(self.context.pass_index, len(by_pass) - 1)])
        return trial(self)

    CaseRun.trial = with_fakes  # type: ignore[method-assign]


if __name__ == "__main__":
    install_by_pass(json.loads(Path(os.environ["TWO_BACKENDS"]).read_text()))
    with torch.inference_mode():
        sys.exit(worker.main())
