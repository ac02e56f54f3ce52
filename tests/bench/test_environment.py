"""What is recorded of the machine, and which torch and device are refused."""

import sys
from types import ModuleType

import pytest
import torch

from bench import environment, version
from bench.errors import BenchError

CPU = torch.device("cpu")


@pytest.mark.parametrize("version", ["2.9.0", "2.9.0a0+145a3a7bda.nv25.10", "2.13.0+cpu", "3.0.1"])
def test_a_release_from_2_9_on_is_taken_pre_releases_included(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    environment.check_torch()


@pytest.mark.parametrize("version", ["2.8.0+cu126", "1.13.1"])
def test_an_older_torch_is_refused_with_its_place(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(BenchError) as refused:
        environment.check_torch()
    assert str(refused.value).startswith(f"torch {version} at ")
    assert str(refused.value).endswith(": 2.9 or newer is needed")


@pytest.mark.parametrize(
    ("asked", "gpu", "chosen"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_a_gpu_is_taken_where_there_is_one_unless_asked_otherwise(
    asked: str, gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert environment.choose_device(asked).type == chosen  # type: ignore[arg-type]


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BenchError, match=r"^--device cuda: .*allowed here: auto, cpu"):
        environment.choose_device("cuda")


def test_a_cpu_is_described_by_its_memory_and_versions() -> None:
    machine = environment.describe(CPU)
    assert (machine.device, machine.sm_count, machine.capability) == ("cpu", 0, None)
    assert machine.memory_bytes > 2**28
    assert machine.torch_version == torch.__version__
    assert machine.name == environment.processor_name() != ""


def test_only_listed_settings_leave_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    monkeypatch.setenv("MADE_UP_SECRET", "hush")
    found = environment.environment(CPU)
    assert found["settings"]["CUDA_LAUNCH_BLOCKING"] == "1"
    assert "hush" not in str(found)
    assert set(found["packages"]) == set(environment.PACKAGES)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "gpu" not in found


def test_a_package_that_is_not_installed_is_none() -> None:
    assert environment.installed("no-such-package-of-ours") is None
    assert environment.installed("torch") is not None


def test_the_code_that_ran_is_recorded() -> None:
    assert environment.environment(CPU)["bench"] == {
        "version": version.version(),
        "checkout": version.checkout(),
        "source": version.source(),
    }


def test_a_gpus_clocks_and_limits_are_what_nvml_says_and_unknown_where_it_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NVMLError(Exception):
        pass

    def silent(handle: str) -> int:
        raise NVMLError

    nvml = ModuleType("pynvml")
    vars(nvml).update(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-ab": "first"}[uuid],
        nvmlDeviceGetClockInfo=lambda handle, kind: {1: 1980, 2: 2619}[kind],
        nvmlDeviceGetMaxClockInfo=lambda handle, kind: 1980,
        nvmlDeviceGetPowerManagementLimit=lambda handle: 700_000,
        nvmlDeviceGetPersistenceMode=silent,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert environment.gpu_state("ab") == environment.gpu_state("GPU-ab")
    assert environment.gpu_state("ab") == {
        "sm_clock_mhz": 1980,
        "sm_clock_max_mhz": 1980,
        "memory_clock_mhz": 2619,
        "power_limit_w": 700.0,
        "persistence_mode": None,
    }
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert environment.gpu_state("ab") == {}


def test_the_driver_is_unknown_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert environment.driver_version() is None


def test_the_driver_is_what_nvml_says_if_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    nvml = ModuleType("pynvml")
    vars(nvml).update(NVMLError=NVMLError, nvmlInit=lambda: None, nvmlSystemGetDriverVersion=lambda: "570.1")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert environment.driver_version() == "570.1"

    def fails() -> None:
        raise NVMLError

    vars(nvml).update(nvmlInit=fails)
    assert environment.driver_version() is None
