"""What the GPU is and how it runs right now: identity, FP4, queues, clocks and throttling."""

import os
from dataclasses import asdict
from typing import Any

import torch

from bench.doctor.findings import Finding, State
from bench.environment import driver_version, uuid_of
from bench.telemetry import Gpu, NvmlSilentError
from moe_impl.support import has_fp4

LEAST_CONNECTIONS = 2
"""Hardware queues below which two streams share one, and nothing overlaps."""


def identity(device: torch.device) -> Finding:
    """Name, capability, SMs, memory, driver."""
    gpu = torch.cuda.get_device_properties(device)
    data = {
        "name": gpu.name,
        "capability": [gpu.major, gpu.minor],
        "sm_count": gpu.multi_processor_count,
        "memory_bytes": gpu.total_memory,
        "driver": driver_version(),
        "cuda": torch.version.cuda,
    }
    driver = f", driver {data['driver']}" if data["driver"] else ""
    said = (
        f"{gpu.name}, sm_{gpu.major}{gpu.minor}, {gpu.multi_processor_count} SMs, {gpu.total_memory / 2**30:.1f} GiB"
        f", CUDA {torch.version.cuda}{driver}"
    )
    return Finding("gpu", State.OK, said, data)


def fp4(device: torch.device) -> Finding:
    """Whether NVFP4 products are the hardware's own."""
    native = has_fp4(torch.cuda.get_device_capability(device))
    said = "native FP4 tensor cores" if native else "no FP4 tensor cores: NVFP4 is emulated (exact products)"
    return Finding("fp4", State.OK, said, {"native": native})


def nccl() -> Finding:
    """What link ``collective`` would use."""
    if not torch.distributed.is_nccl_available():
        return Finding("nccl", State.MISSING, "this torch has no NCCL: link collective cannot run")
    version = ".".join(map(str, torch.cuda.nccl.version()))
    gpus = torch.cuda.device_count()
    return Finding("nccl", State.OK, f"NCCL {version}, {gpus} GPU(s) visible", {"version": version, "gpus": gpus})


def queues(settings: Any = os.environ) -> Finding:
    """Settings that serialise streams."""
    connections = settings.get("CUDA_DEVICE_MAX_CONNECTIONS")
    blocking = settings.get("CUDA_LAUNCH_BLOCKING")
    data = {"CUDA_DEVICE_MAX_CONNECTIONS": connections, "CUDA_LAUNCH_BLOCKING": blocking}
    if blocking not in (None, "", "0"):
        said = f"CUDA_LAUNCH_BLOCKING={blocking}: every launch waits, nothing overlaps"
        return Finding("queues", State.WARN, said, data, "unset CUDA_LAUNCH_BLOCKING")
    if connections is not None and connections.isdigit() and int(connections) < LEAST_CONNECTIONS:
        said = f"CUDA_DEVICE_MAX_CONNECTIONS={connections}: streams share one queue, so nothing may overlap"
        return Finding("queues", State.WARN, said, data, "unset CUDA_DEVICE_MAX_CONNECTIONS")
    return Finding("queues", State.OK, "no setting serialises streams", data)


def clocks(device: torch.device) -> Finding:
    """SM clock, power, temperature and why the GPU is slowed down, now."""
    try:
        return clocks_of(Gpu(uuid_of(device)))
    except ImportError:
        said = "nvidia-ml-py is not installed: clocks and throttling are not recorded"
        return Finding("clocks", State.MISSING, said, remedy="pip install nvidia-ml-py")
    except NvmlSilentError as error:
        return Finding("clocks", State.UNKNOWN, str(error))


def clocks_of(gpu: Gpu) -> Finding:
    """What NVML says of this one."""
    now, most_hz = gpu.now(), gpu.sm_clock_max_hz()
    data = {**asdict(now), "sm_clock_max_hz": most_hz}
    said = f"SM {_mhz(now.sm_clock_hz)} of {_mhz(most_hz)} MHz, {now.power_w} W"
    if now.throttled_by is None:
        return Finding("clocks", State.UNKNOWN, f"{said}; whether anything slows it down is not told", data)
    if now.throttled_by:
        return Finding("clocks", State.WARN, f"{said}; slowed down by {', '.join(now.throttled_by)}", data)
    return Finding("clocks", State.OK, f"{said}, not slowed down", data)


def _mhz(hertz: float | None) -> str:
    return "?" if hertz is None else f"{hertz / 1e6:.0f}"
