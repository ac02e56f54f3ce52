"""What ran, where: versions, device, and the few settings that change timing. An allow-list, never the environment."""

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from bench.errors import BenchError
from bench.telemetry import Gpu, NvmlSilentError
from bench.version import checkout, source, version
from moe_impl.options import Machine

OLDEST_TORCH = (2, 9)
PACKAGES = ("moe-tbo-bench", "torch", "triton", "humming-kernels", "nvtx", "numpy", "pandas")
SETTINGS = (
    "CUDA_DEVICE_MAX_CONNECTIONS",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_LAUNCH_BLOCKING",
    "PYTORCH_CUDA_ALLOC_CONF",
    "NCCL_ALGO",
    "NCCL_MAX_NCHANNELS",
    "NCCL_MIN_NCHANNELS",
    "NCCL_P2P_DISABLE",
    "NCCL_PROTO",
)
"""Environment variables that change what is measured."""


class Common(TypedDict):
    """What every kind of machine says of itself."""

    torch_version: str
    triton_version: str | None
    humming_version: str | None
    ranks: int


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_torch() -> None:
    """Raises BenchError for a torch that is too old; pre-releases such as NGC's 2.9.0a0 count as their release."""
    release = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if release < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise BenchError(f"torch {torch.__version__} at {Path(torch.__file__).parent}: {oldest} or newer is needed")


def choose_device(asked: Literal["auto", "cuda", "cpu"]) -> torch.device:
    """The GPU where there is one, unless asked otherwise.

    Raises:
        BenchError: ``cuda`` asked for, and none there.
    """
    if asked == "cuda" and not torch.cuda.is_available():
        raise BenchError("--device cuda: torch sees no CUDA GPU (allowed here: auto, cpu)")
    return torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")


def describe(device: torch.device, ranks: int = 1) -> Machine:
    """The part of the environment that decides what can run."""
    common: Common = {
        "torch_version": torch.__version__,
        "triton_version": installed("triton"),
        "humming_version": installed("humming-kernels"),
        "ranks": ranks,
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        return Machine("cuda", gpu.name, gpu.total_memory, gpu.multi_processor_count, (gpu.major, gpu.minor), **common)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine("cpu", processor_name(), memory, **common)


def processor_name() -> str:
    """From /proc/cpuinfo where there is one."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def environment(device: torch.device) -> dict[str, Any]:
    """For environment.json: versions, device, driver and settings."""
    found: dict[str, Any] = {
        "bench": {"version": version(), "checkout": checkout(), "source": source()},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {package: installed(package) for package in PACKAGES},
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "cuda": torch.version.cuda,
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found["gpu"] = {"name": gpu.name, "memory_bytes": gpu.total_memory, "sm_count": gpu.multi_processor_count}
        found["visible_gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        found["nccl"] = nccl_version()
        found["driver"] = driver_version()
        found["gpu"] |= gpu_state(uuid_of(device))
    return found


def nccl_version() -> str | None:
    """Of the NCCL that torch was built with, if it was."""
    if not (torch.distributed.is_available() and torch.distributed.is_nccl_available()):
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))


def driver_version() -> str | None:
    """The NVIDIA driver's, if nvidia-ml-py is there to ask."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def uuid_of(device: torch.device) -> str:
    """Of a GPU, as NVML knows it but for its ``GPU-``; empty where torch does not tell."""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def gpu_state(uuid: str) -> dict[str, Any]:
    """Clocks, power limit and persistence mode before the sweep, of the GPU of this uuid; None where NVML is silent."""
    try:
        gpu = Gpu(uuid)
    except (ImportError, NvmlSilentError):
        return {}
    power_limit_mw = gpu.ask("PowerManagementLimit")
    persistent = gpu.ask("PersistenceMode")
    return {
        "sm_clock_mhz": gpu.ask("ClockInfo", gpu.nvml.NVML_CLOCK_SM),
        "sm_clock_max_mhz": gpu.ask("MaxClockInfo", gpu.nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": gpu.ask("ClockInfo", gpu.nvml.NVML_CLOCK_MEM),
        "power_limit_w": None if power_limit_mw is None else power_limit_mw / 1000,
        "persistence_mode": None if persistent is None else bool(persistent),
    }
