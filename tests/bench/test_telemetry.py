"""What is made of NVML's answers, by a GPU that exists only here."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from one_pass import Pass
from small_sweep import small_case

from bench.doctor import gpu
from bench.doctor.findings import State
from bench.results import Status, from_record, to_record
from bench.telemetry import Gpu, GpuState, NvmlSilentError, slowed, watching


class NVMLError(Exception):
    """As pynvml's."""


class FakeNvml(SimpleNamespace):
    """pynvml as far as it is used, with NVML's own bits; an answer that is an exception is raised."""

    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0
    nvmlClocksThrottleReasonSwPowerCap = 0x4
    nvmlClocksThrottleReasonHwSlowdown = 0x8
    nvmlClocksThrottleReasonSwThermalSlowdown = 0x20
    nvmlClocksThrottleReasonHwThermalSlowdown = 0x40

    def __init__(self, **answers: Any) -> None:
        self.asked: list[str] = []
        self.answers = {"ClockInfo": 1980, "MaxClockInfo": 1995, "PowerUsage": 512_300, "Temperature": 41} | answers

    def nvmlInit(self) -> None:  # noqa: N802
        if "Init" in self.answers:
            raise self.answers["Init"]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        return uuid

    def __getattr__(self, name: str) -> Any:
        question = name.removeprefix("nvmlDeviceGet")
        if question == name or question not in self.answers:
            raise AttributeError(name)

        def answer(handle: str, *about: int) -> Any:
            self.asked.append(handle)
            found = self.answers[question]
            if isinstance(found, Exception):
                raise found
            return found.pop(0) if isinstance(found, list) else found

        return answer


def test_a_state_is_in_si_units_with_the_reasons_that_slow_down() -> None:
    nvml = FakeNvml(CurrentClocksThrottleReasons=0x1 | 0x4 | 0x40)  # 0x1: idle, which slows nothing down
    found = Gpu("GPU-1234", nvml).now()
    assert found == GpuState(1.98e9, pytest.approx(512.3), 41.0, ("SwPowerCap", "HwThermalSlowdown"))
    assert set(nvml.asked) == {"GPU-1234"}
    assert Gpu("1234", nvml).sm_clock_max_hz() == 1.995e9


def test_what_is_not_told_is_unknown_and_never_zero() -> None:
    assert Gpu("1", FakeNvml(PowerUsage=NVMLError("not supported"))).now() == GpuState(1.98e9, None, 41.0, None)
    assert Gpu("1", FakeNvml(CurrentClocksThrottleReasons=0)).now().throttled_by == ()


def test_without_gpu_package_or_driver_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = FakeNvml(Init=NVMLError("no driver"))
    with pytest.raises(NvmlSilentError, match="NVML does not answer: no driver"):
        Gpu("1", broken)
    assert watching("1", broken)() is None
    assert watching(None)() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert watching("1")() is None
    assert watching("1", FakeNvml())() == GpuState(1.98e9, pytest.approx(512.3), 41.0, None)


def state(*reasons: str) -> GpuState:
    return GpuState(1e9, 100.0, 40.0, reasons)


def test_a_reason_between_two_rounds_is_told_of_both() -> None:
    calm, capped = state(), state("SwPowerCap")
    assert slowed([[calm, calm, calm]]) == []
    assert slowed([[capped, calm, calm, calm]]) == ["slowed down by SwPowerCap: next to round 1"]
    assert slowed([[calm, calm, capped, calm]]) == ["slowed down by SwPowerCap: next to round 2, 3"]
    assert slowed([[calm, calm, calm, capped]]) == ["slowed down by SwPowerCap: next to round 3"]


def test_any_ranks_reason_counts_and_an_unknown_one_does_not() -> None:
    hot = state("HwSlowdown", "SwPowerCap")
    ranks = [[state(), hot, state()], [hot, state(), state()], [GpuState(None, None, None, None)] * 3]
    assert slowed(ranks) == [
        "slowed down by SwPowerCap: next to round 1, 2",
        "slowed down by HwSlowdown: next to round 1, 2",
    ]
    assert slowed([[]]) == []


def test_a_pass_stores_a_state_at_every_end_of_a_round_and_flags_what_was_slowed_down(tmp_path: Path) -> None:
    nvml = FakeNvml(CurrentClocksThrottleReasons=[0, 0, 0x20], PowerUsage=[100_000, 600_000, 700_000])
    one_pass = Pass(tmp_path)
    trial = one_pass.run(small_case(), gpu_now=watching("1", nvml))
    assert [round(told.power_w or 0) for told in trial.telemetry] == [100, 600, 700]
    for m in trial.measurements:
        assert (m.status, len(m.samples_s)) == (Status.OK, 4), "flagged, not dropped"
        assert "slowed down by SwThermalSlowdown: next to round 2" in m.flags
    assert from_record(to_record(trial)) == trial


def test_a_pass_without_nvml_stores_no_telemetry(tmp_path: Path) -> None:
    trial = Pass(tmp_path).run(small_case())
    assert trial.telemetry == ()
    record = to_record(trial)
    del record["telemetry"], record["off_again"]
    assert from_record(record) == trial, "as stored before there was any"


@pytest.mark.parametrize(
    ("answers", "state", "said"),
    [
        ({"CurrentClocksThrottleReasons": 0}, State.OK, "SM 1980 of 1995 MHz, 512.3 W, not slowed down"),
        ({"CurrentClocksThrottleReasons": 8}, State.WARN, "SM 1980 of 1995 MHz, 512.3 W; slowed down by HwSlowdown"),
        ({}, State.UNKNOWN, "SM 1980 of 1995 MHz, 512.3 W; whether anything slows it down is not told"),
    ],
)
def test_the_doctor_reads_the_same(answers: dict[str, int], state: State, said: str) -> None:
    found = gpu.clocks_of(Gpu("1", FakeNvml(**answers)))
    assert (found.state, found.said) == (state, said)
    assert found.data["temperature_c"] == 41.0
