"""compute-sanitizer's memcheck over every variant of a small sweep file: no access outside what was allocated.

    python tools/memcheck.py [--sweep tests/gpu/memcheck.yaml] [--filter precision=nvfp4,engine=streams] [--plant]

torch's allocator gives many tensors out of one block, in which an access beyond a tensor is none beyond the block. So
it is switched off, and every tensor is an allocation of its own. CUDA graphs cannot be captured without it and take no
part; nor does `experts: auto`, for which no backend is chosen here. What is left out is listed, and where nothing ran
the script fails. Each output is compared with the oracle's, too. ``--plant`` writes behind a tensor, and must be found.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.cases import Case
    from moe_impl.options import Machine, Variant

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "tests" / "gpu" / "memcheck.yaml"
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")
FOUND = 86
"""Exit code where memcheck found something: none of Python's."""
NOTHING = 2
"""Exit code where nothing was checked: no compute-sanitizer, no GPU, a wrong sweep file, or no variant that runs."""
WATCHED = "BENCH_MEMCHECK"
"""Set in the process that is watched."""


def sanitizer() -> str | None:
    """compute-sanitizer on PATH, or where toolkits put it."""
    return shutil.which("compute-sanitizer", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *PLACES)))


def watch(tool: str) -> int:
    """This script again, under memcheck; its exit code, or FOUND."""
    words = [tool, "--tool", "memcheck", "--target-processes", "application-only", "--error-exitcode", str(FOUND)]
    inherited = os.environ.get("PYTHONPATH")
    changed = {
        WATCHED: "1",
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{inherited}" if inherited else str(ROOT),
    }
    return subprocess.run([*words, sys.executable, __file__, *sys.argv[1:]], env=os.environ | changed).returncode


def plant() -> None:
    """Write 4 KiB behind a tensor of 64 bytes."""
    import torch

    small = torch.zeros(64, dtype=torch.uint8, device="cuda")
    storage = torch._C._construct_storage_from_data_pointer(small.data_ptr(), small.device, 64 + 4096)
    torch.empty(0, dtype=torch.uint8, device="cuda").set_(storage).fill_(1)
    torch.cuda.synchronize()


def left_out_reason(case: "Case", variant: "Variant", machine: "Machine") -> str | None:
    """Why a variant takes no part, in one clause, or None if it does."""
    from moe_impl.support import unsupported_reason

    if variant.launch == "graph":
        return "launch graph: nothing is captured without torch's own allocator"
    if variant.experts == "auto":
        return "experts auto: stands for a backend, name those that are to be watched"
    return unsupported_reason(case.workload, case.link, variant, machine)


def run(sweep: Path, terms: str | None, device_name: str = "cuda") -> int:
    """Every variant of every case once, or of those that a ``--filter`` keeps.

    Args:
        device_name: where a test of this script runs them in place of a GPU.

    Returns:
        0; 1 where an output is wrong; NOTHING where no variant could run, so that nothing was checked.

    Raises:
        BenchError: the sweep file or the filter is wrong.
    """
    import torch

    from bench import correctness, filters
    from bench.cases import expand
    from bench.config import load
    from bench.environment import describe
    from bench.naming import case_names
    from bench.targets import Targets

    began_s, wrong, ran = time.monotonic(), 0, 0
    cases = filters.select(expand(load(sweep)), terms)
    device = torch.device(device_name)
    machine, targets = describe(device), Targets(device)
    names, left_out = case_names(cases), Counter[str]()
    for case in cases:
        reasons = {variant: left_out_reason(case, variant, machine) for variant in case.variants}
        watched = [variant for variant, reason in reasons.items() if reason is None]
        left_out.update(f"{variant.label}: {reason}" for variant, reason in reasons.items() if reason is not None)
        if not watched:
            continue
        target = targets.build(case)
        for variant in watched:
            _, traces = target.run(variant, lambda position: None).traced()
            if device.type == "cuda":
                torch.cuda.synchronize()
            check = correctness.against_oracle(traces, target.oracle, case.workload.precision)
            if not check.passed:
                print(f"{names[case.case_id]}, {variant.label}: {correctness.said_wrong(check)}", flush=True)
            wrong, ran = wrong + (not check.passed), ran + 1
        print(f"{time.monotonic() - began_s:6.1f} s  {names[case.case_id]}: {len(watched)} variants", flush=True)
    for said, times in left_out.items():
        print(f"left out of {times} cases: {said}")
    print(f"{ran} runs, {left_out.total()} left out")
    if not ran:
        print("nothing ran, so nothing was checked", file=sys.stderr)
        return NOTHING
    return 1 if wrong else 0


def under_watch(asked: argparse.Namespace) -> int:
    """What the watched process does; its exit code."""
    import torch

    from bench.errors import BenchError

    if not torch.cuda.is_available():
        print("needs a CUDA GPU", file=sys.stderr)
        return NOTHING
    if asked.plant:
        plant()
        return 0
    try:
        return run(asked.sweep, asked.filter)
    except BenchError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        return NOTHING


def main() -> int:
    """0 nothing found, FOUND something, 1 a wrong output, NOTHING was checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--filter", metavar="KEY=VALUE,...", help="only these cases and variants")
    parser.add_argument("--plant", action="store_true", help="write behind a tensor instead: memcheck must find it")
    asked = parser.parse_args()
    if WATCHED in os.environ:
        return under_watch(asked)
    tool = sanitizer()
    if tool is None:
        print(f"compute-sanitizer is neither on PATH nor in {', '.join(PLACES)}", file=sys.stderr)
        return NOTHING
    return watch(tool)


if __name__ == "__main__":
    sys.exit(main())
