"""Everything that needs torch, one finding a line of JSON on standard output, as it is found.

python -P -m bench.doctor.device --device auto
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch

from bench.doctor import bandwidth, gpu, precision
from bench.doctor.findings import Finding, State
from bench.environment import check_torch, choose_device, describe, installed
from bench.errors import BenchError, Exit
from bench.measure.timer import timer_for


def checks(device: torch.device) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Name of a check and the check; the quick ones first."""
    yield "versions", lambda: versions(device)
    timer = timer_for(device)
    if device.type == "cuda":
        yield "gpu", lambda: gpu.identity(device)
        yield "fp4", lambda: gpu.fp4(device)
        yield "nccl", gpu.nccl
        yield "queues", gpu.queues
        yield "clocks", lambda: gpu.clocks(device)
        yield "copy", lambda: bandwidth.memory(device, timer.device_time_s)
        yield "pcie", lambda: bandwidth.pcie(device, timer.device_time_s)
        yield "timer", lambda: precision.timer_bias(device, timer)
        yield "l2", lambda: precision.cold_cache(device, timer)
    yield "noise", lambda: precision.noise_floor(device, timer)


def versions(device: torch.device) -> Finding:
    """What is measured with."""
    machine = describe(device)
    data = {"torch": torch.__version__, "triton": machine.triton_version, "python": sys.version.split()[0]}
    said = f"torch {data['torch']}, triton {data['triton'] or 'missing'}, python {data['python']}"
    if device.type == "cpu":
        said += f"; no GPU: {machine.name}"
    lacking = machine.triton_version is None and device.type == "cuda"
    return Finding("versions", State.MISSING if lacking else State.OK, said, {**data, "nvtx": installed("nvtx")})


def found_by(name: str, check: Callable[[], Finding]) -> Finding:
    """The finding, or that the check itself broke: one broken check must not hide the others."""
    try:
        return check()
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        return Finding(name, State.WARN, f"this check failed: {type(error).__name__}: {first_line}")


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.doctor.device")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    args = parser.parse_args()
    try:
        check_torch()
        device = choose_device(args.device)
    except BenchError as error:
        print(error, file=sys.stderr)
        return error.code
    with torch.inference_mode():
        for name, check in checks(device):
            print(json.dumps(asdict(found_by(name, check))), flush=True)
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())
