"""What the doctor says of planted tools, drivers and settings, and that one broken check hides no other."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.doctor import device, examine, gpu, precision, tools
from bench.doctor.findings import Finding, State
from bench.errors import BenchError
from bench.measure.timer import HostTimer

NSYS = "2025.3.1/host/target-linux-x64/nsys"
IMPORTER = "2025.3.1/host/linux-desktop-glibc_2_11_3-x64/QdstrmImporter"
LACKING = "\tlibdw.so.1 => not found\n\tlibelf.so.1 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x0)\n"


def planted(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def saying(version: str, libraries: str = "") -> tools.Run:
    return lambda words: libraries if words[0] == "ldd" else version


@pytest.fixture(autouse=True)
def nothing_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))


def test_no_nsys_is_missing(tmp_path: Path) -> None:
    assert tools.nsys(saying("x"), tmp_path).state is State.MISSING


def test_the_copy_inside_nsight_compute_is_found_newest_first(tmp_path: Path) -> None:
    older = NSYS.replace("2025.3.1", "2025.2.9")
    found = tools.nsys(saying("NVIDIA Nsight Systems version 2025.1.3.140"), planted(tmp_path, NSYS, older, IMPORTER))
    assert (found.state, found.data) == (State.OK, {"path": str(tmp_path / NSYS), "version": "2025.1.3.140"})


def test_an_importer_that_cannot_start_names_the_packages(tmp_path: Path) -> None:
    found = tools.nsys(saying("version 2025.1.3", LACKING), planted(tmp_path, NSYS, IMPORTER))
    assert found.state is State.WARN
    assert found.data["lacking"] == ["libdw.so.1", "libelf.so.1"]
    assert found.remedy is not None
    assert "libdw1 libelf1" in found.remedy


def test_a_tool_that_does_not_start_is_missing(tmp_path: Path) -> None:
    assert tools.ncu(saying(""), planted(tmp_path, "2025.3.1/ncu")).state is State.MISSING
    assert tools.ncu(saying("Version 2025.3.1.0"), tmp_path).data["version"] == "2025.3.1.0"


@pytest.mark.parametrize(
    ("text", "admin", "state"),
    [
        ("RmProfilingAdminOnly: 1\n", False, State.MISSING),
        ("RmProfilingAdminOnly: 1\n", True, State.OK),
        ("Other: 3\nRmProfilingAdminOnly: 0\n", False, State.OK),
        ("Other: 3\n", False, State.UNKNOWN),
    ],
)
def test_who_may_read_counters(tmp_path: Path, text: str, admin: bool, state: State) -> None:
    (tmp_path / "params").write_text(text)
    assert tools.counters(tmp_path / "params", admin).state is state


@pytest.mark.parametrize(
    ("status", "admin"),
    [("CapPrm:\t0\nCapEff:\t000001ffffffffff\n", True), ("CapEff:\t00000000a80425fb\n", False), ("Name: x\n", False)],
)
def test_root_of_a_container_is_no_administrator(tmp_path: Path, status: str, admin: bool) -> None:
    (tmp_path / "status").write_text(status)
    assert tools.is_admin(tmp_path / "status") is admin
    assert not tools.is_admin(tmp_path / "none")


def test_a_machine_without_a_driver_cannot_be_asked_for_counters(tmp_path: Path) -> None:
    assert tools.counters(tmp_path / "params").state is State.UNKNOWN


def test_a_program_that_never_answers_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "ANSWER_LIMIT_S", 0.2)
    started = time.monotonic()
    assert tools.output_of([sys.executable, "-c", "import time; time.sleep(60)"]) == ""
    assert time.monotonic() - started < 10
    assert tools.output_of(["/no/such/program"]) == ""


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        ({}, State.OK),
        ({"CUDA_DEVICE_MAX_CONNECTIONS": "8", "CUDA_LAUNCH_BLOCKING": "0"}, State.OK),
        ({"CUDA_DEVICE_MAX_CONNECTIONS": "1"}, State.WARN),
        ({"CUDA_LAUNCH_BLOCKING": "1"}, State.WARN),
    ],
)
def test_settings_that_serialise_streams_are_told(settings: dict[str, str], state: State) -> None:
    assert gpu.queues(settings).state is state


def test_a_broken_check_is_told_and_hides_no_other() -> None:
    def broken() -> Finding:
        raise RuntimeError("out of luck\nand more")

    found = device.found_by("l2", broken)
    assert (found.name, found.state) == ("l2", State.WARN)
    assert found.said == "this check failed: RuntimeError: out of luck"


def test_the_noise_floor_sees_two_equal_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = precision.MeasureSettings(passes=1, rounds=3, round_min_s=0.0, warm_up_s=0.0)
    monkeypatch.setattr(precision, "NOISE_SETTINGS", quick)
    found = precision.noise_floor(torch.device("cpu"), HostTimer())
    assert found.said.startswith("A/A within one process: ")
    assert 0.2 < found.data["speedup"] < 5
    assert found.data["min_detectable"] > 0
    assert found.state is (State.WARN if found.data["min_detectable"] > quick.same_within else State.OK)


def lines(*findings: Finding) -> str:
    told = [
        json.dumps({"name": f.name, "state": f.state, "said": f.said, "data": {}, "remedy": None}) for f in findings
    ]
    return "".join(f"print({line!r}, flush=True)\n" for line in told)


def started_as(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_what_was_found_before_the_examination_died_is_kept() -> None:
    code = f"import os, sys\nprint('noise of a library')\n{lines(Finding('gpu', State.OK, 'x'))}os.kill(os.getpid(), 9)"
    first, last = examine.on_device("auto", started_as(code))
    assert (first.name, first.state) == ("gpu", State.OK)
    assert (last.state, last.said) == (State.MISSING, "the examination was killed by SIGKILL")


def test_an_examination_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "LIMIT_S", 1.0)
    code = f"import time\n{lines(Finding('gpu', State.OK, 'x'))}time.sleep(60)"
    assert [f.state for f in examine.on_device("auto", started_as(code))] == [State.OK, State.MISSING]


def test_a_gpu_that_is_not_there_is_bad_input() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(BenchError, match="--device cuda: torch sees no CUDA GPU"):
        examine.on_device("cuda")


def test_bench_doctor_answers_for_people_and_for_scripts() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "doctor", "--json", "--device", "cpu"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert list(found) == ["versions", "noise", "nsys", "ncu", "counters"]
    assert found["versions"]["data"]["torch"] == torch.__version__
