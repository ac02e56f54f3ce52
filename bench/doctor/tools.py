"""Nsight Systems, Nsight Compute and the right to read counters: what is there, and what they lack. Torch-free."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.doctor.findings import Finding, State

NSIGHT_COMPUTE = Path("/opt/nvidia/nsight-compute")
DRIVER_PARAMETERS = Path("/proc/driver/nvidia/params")
OWN_STATUS = Path("/proc/self/status")
CAP_SYS_ADMIN = 1 << 21
COUNTERS = (
    "run as root (in a container with --cap-add=SYS_ADMIN), or have the administrator load the driver with "
    "NVreg_RestrictProfilingToAdminUsers=0"
)
"""What lets a user read performance counters."""
ANSWER_LIMIT_S = 20.0
PACKAGES = {"libdw.so.1": "libdw1", "libelf.so.1": "libelf1"}
"""Shared library -> the Debian package that brings it."""

Run = Callable[[list[str]], str]


def output_of(words: list[str]) -> str:
    """What a program prints on standard output and error; empty where it cannot be run or takes too long."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_LIMIT_S, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def version_in(text: str) -> str | None:
    """The first thing that looks like a version."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found.group() if found else None


def newest(paths: Iterable[Path]) -> Path | None:
    """The one under the highest version; Nsight Compute's copies live in folders named by it."""
    return max(paths, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], default=None)


def find_tool(name: str, inside: str, root: Path = NSIGHT_COMPUTE) -> Path | None:
    """On PATH, else inside Nsight Compute."""
    on_path = shutil.which(name)
    return Path(on_path) if on_path else newest(root.glob(inside))


def nsys(run: Run = output_of, root: Path = NSIGHT_COMPUTE) -> Finding:
    """Nsight Systems, also the copy that Nsight Compute ships, and the importer without which it leaves no report."""
    found = find_tool("nsys", "*/host/target-linux-x64/nsys", root)
    if found is None:
        return Finding("nsys", State.MISSING, "Nsight Systems is neither on PATH nor inside Nsight Compute")
    version = version_in(run([str(found), "--version"]))
    data = {"path": str(found), "version": version}
    if version is None:
        return Finding("nsys", State.MISSING, f"{found} does not start", data)
    importer = newest(found.parent.parent.glob("linux-desktop*/QdstrmImporter"))
    lacking = re.findall(r"(\S+) => not found", run(["ldd", str(importer)])) if importer else []
    if lacking:
        packages = " ".join(sorted(PACKAGES.get(library, library) for library in lacking))
        said = f"{version} at {found}, whose importer lacks {', '.join(lacking)}: it would leave no .nsys-rep"
        remedy = f"install {packages}, or unpack their files and name the folder in LD_LIBRARY_PATH"
        return Finding("nsys", State.WARN, said, {**data, "lacking": lacking}, remedy)
    return Finding("nsys", State.OK, f"{version} at {found}", data)


def ncu(run: Run = output_of, root: Path = NSIGHT_COMPUTE) -> Finding:
    """Nsight Compute."""
    found = find_tool("ncu", "*/ncu", root)
    if found is None:
        return Finding("ncu", State.MISSING, f"Nsight Compute is neither on PATH nor in {root}")
    version = version_in(run([str(found), "--version"]))
    data = {"path": str(found), "version": version}
    if version is None:
        return Finding("ncu", State.MISSING, f"{found} does not start", data)
    return Finding("ncu", State.OK, f"{version} at {found}", data)


def is_admin(status: Path = OWN_STATUS) -> bool:
    """Whether this process has CAP_SYS_ADMIN, which root inside a container usually lacks."""
    try:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status.read_text(), re.MULTILINE)
    except OSError:
        return False
    return found is not None and bool(int(found.group(1), 16) & CAP_SYS_ADMIN)


def counters(parameters: Path = DRIVER_PARAMETERS, admin: bool | None = None) -> Finding:
    """Whether this user may read the GPU's performance counters, which ncu and nsys' GPU metrics need."""
    try:
        text = parameters.read_text()
    except OSError:
        return Finding("counters", State.UNKNOWN, f"no {parameters}: no NVIDIA driver to ask")
    admin_only = re.search(r"^RmProfilingAdminOnly:\s*(\d)", text, re.MULTILINE)
    if admin_only is None:
        return Finding("counters", State.UNKNOWN, f"{parameters} does not say who may read them")
    allowed = admin_only.group(1) == "0" or (is_admin() if admin is None else admin)
    data = {"admin_only": admin_only.group(1) == "1", "allowed": allowed}
    if allowed:
        return Finding("counters", State.OK, "performance counters may be read", data)
    return Finding("counters", State.MISSING, "performance counters are for administrators only", data, COUNTERS)


def tools() -> list[Finding]:
    """All of them."""
    return [nsys(), ncu(), counters()]
