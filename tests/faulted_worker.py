"""The real worker, with faults planted where the file that FAULTED_WORKER names says.

The file holds {"log": PATH, "faults": {TOKENS: FAULT}}. The log gets the process id of every worker that was given a
job. A fault is met by the overlapped variant of that case, in its first run, before the first merge.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import triton
import triton.language as tl

from bench import worker
from bench.targets import Target
from moe_impl.options import Variant
from moe_impl.stages import Stage
from moe_impl.state import UbatchState
from moe_impl.variant_run import VariantRun

FAR_AWAY = 1 << 44
"""Elements behind any buffer: no GPU has memory mapped there."""


@triton.jit
def store_far_away(x_ptr, offset):
    tl.store(x_ptr + offset.to(tl.int64), 1)


@triton.jit
def cannot_be_compiled():
    tl.static_assert(False, "made up")


def run_out_of_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.empty(10 * torch.cuda.get_device_properties(device).total_memory, dtype=torch.uint8, device=device)
    bytearray(10 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def write_out_of_bounds(device: torch.device) -> None:
    if device.type == "cuda":
        store_far_away[(1,)](torch.zeros(1, dtype=torch.int32, device=device), FAR_AWAY)
    else:
        ctypes.string_at(0)


def hang(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda._sleep(1 << 62)
    else:
        time.sleep(3600)


def compile_what_cannot(device: torch.device) -> None:
    cannot_be_compiled[(1,)]()


def be_killed(device: torch.device) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS: dict[str, Callable[[torch.device], None]] = {
    "out of memory": run_out_of_memory,
    "illegal access": write_out_of_bounds,
    "hang": hang,
    "compile failure": compile_what_cannot,
    "killed": be_killed,
    "not finite": lambda device: None,
}


def plant(faults: dict[int, str]) -> None:
    build = Target.run

    def run(self: Target, variant: Variant, progress: Callable[[int], None]) -> VariantRun:
        made = build(self, variant, progress)
        fault = faults.get(self.workload.tokens)
        if fault is None or variant.role != "T2o":
            return made
        merge = made._stages.bodies[Stage.MERGE]

        def faulted(state: UbatchState, layer: int) -> None:
            FAULTS[fault](self.device)
            merge(state, layer)
            if fault == "not finite":
                assert state.y_TH is not None
                state.y_TH.fill_(torch.nan)

        made._stages.bodies[Stage.MERGE] = faulted
        return made

    Target.run = run  # type: ignore[method-assign]


if __name__ == "__main__":
    script = json.loads(Path(os.environ["FAULTED_WORKER"]).read_text())
    if "--probe" not in sys.argv:
        with Path(script["log"]).open("a") as log:
            log.write(f"{os.getpid()}\n")
    plant({int(tokens): fault for tokens, fault in script["faults"].items()})
    with torch.inference_mode():
        sys.exit(worker.main())
