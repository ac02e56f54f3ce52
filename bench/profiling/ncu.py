"""Nsight Compute over the kernels of one layer of each variant: how it is run, and how its table is read.

It runs one kernel at a time, several times over, and sees nothing of overlap: it tells how well a kernel that has the
GPU to itself uses it. It saves and restores the memory that a kernel may write, which takes its time in a case of some
gigabytes: one layer stands for all. Torch-free.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.cases import Case
from bench.doctor import tools
from bench.errors import BenchError, Exit
from bench.profiling import drive
from bench.profiling.kernels import Kernel, KernelProfile, VariantKernels, write
from bench.profiling.request import Request
from bench.running.worker_process import one_line
from moe_impl.options import Variant
from moe_impl.stages import Stage, lane_of

DOMAIN = "moe_tbo"
"""Of the NVTX ranges (moe_impl.annotate)."""
RANGES = "thread Domain:Push/Pop_Range"
"""How the column begins that holds the ranges a launch was in, outermost first."""
STAGE_RANGE = re.compile(r":(\w+) layer (\d+) ubatch (\d+):")
NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
NO_COUNTERS = "ERR_NVGPUCTRPERM"
DURATION = "gpu__time_duration.sum"
REGISTERS = "launch__registers_per_thread"
SHARES = {
    "dram": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "tensor": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "sm": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "occupancy": "sm__warps_active.avg.pct_of_peak_sustained_active",
}
"""Field of a Kernel -> metric, in percent."""
UNITS_S = {"ns": 1e-9, "nsecond": 1e-9, "s": 1.0, "second": 1.0}
"""Base units of time, as versions of ncu write them."""
LAYER = 0
COMPUTE = tuple(stage.value for stage in Stage if lane_of(stage) == "compute")
"""Stages whose kernels are measured; a modelled transfer's kernels wait for a clock."""
TABLE = ("--page", "raw", "--csv", "--print-units", "base", "--print-kernel-base", "function")


def visible(case: Case) -> Case:
    """The case with the variants that differ in their kernels: T1s and T2s, eager.

    One kernel at a time, T2o runs those of T2s; and a node of a graph is in no stage's range when it is replayed.
    """
    kinds = dict.fromkeys(replace(variant, launch="eager") for variant in case.variants if variant.role != "T2o")
    return replace(case, variants=tuple(kinds))


def options() -> tuple[str, ...]:
    """What ncu is asked; clocks stay as they are in a sweep."""
    ranges = rf"regex:{DOMAIN}@({'|'.join(COMPUTE)}) layer {LAYER} ubatch \d+/"
    return (
        *("--clock-control", "none"),
        *("--profile-from-start", "off"),
        *("--nvtx", "--nvtx-include", ranges),
        *("--metrics", ",".join((DURATION, REGISTERS, *SHARES.values()))),
        "--force-overwrite",
    )


def profile(request: Request, command: str, start: Sequence[str] | None = None) -> KernelProfile:
    """Run the request under ncu and keep what it says of the kernels.

    Args:
        request: what to profile.
        command: makes the profile again.
        start: the profiled process, where a test puts another one in its place.

    Raises:
        BenchError: ncu is missing, may not read counters or saw nothing, the process failed.
    """
    ncu = tools.find_tool("ncu", "*/ncu")
    if ncu is None:
        raise BenchError("ncu is neither on PATH nor in Nsight Compute's folder (bench doctor says what is missing)")
    request, folder = replace(request, iterations=1), Path(request.folder)
    report = folder / "ncu.ncu-rep"
    with drive.planted() as canary:
        words = (str(ncu), *options(), "--export", str(report), *(start or drive.target_command()))
        drive.run(words, request, refuse_without_counters)
    launches = read(table(ncu, report), request.case.variants)
    if canary.encode() in report.read_bytes():
        report.unlink()
    variants = tuple(
        VariantKernels(variant, kernels)
        for variant in request.case.variants
        if (kernels := tuple(one.kernel for one in launches if one.variant == variant))
    )
    if not variants:
        raise BenchError(f"{report}: no kernel of a stage in it: are NVTX ranges off (pip install nvtx)?")
    raw = report.name if report.exists() else None
    return write(KernelProfile(request.case, command, raw, variants), folder)


def refuse_without_counters(said: str) -> None:
    """Raises BenchError where ncu said that this user may not read them."""
    if NO_COUNTERS in said:
        raise BenchError(f"ncu may not read this GPU's performance counters ({NO_COUNTERS}): {tools.COUNTERS}")


def table(ncu: Path, report: Path) -> str:
    """The report's launches as CSV.

    Raises:
        BenchError: there is no report, or it cannot be read.
    """
    if not report.exists():
        raise BenchError(f"{report}: ncu left no report: it saw no kernel of a stage", code=Exit.INTERNAL)
    text = tools.output_of([str(ncu), "--import", str(report), *TABLE])
    lines = [line for line in text.splitlines() if line.startswith('"')]  # others are ncu's remarks
    if not lines:
        raise BenchError(f"{report}: cannot be read: {one_line(text)}", code=Exit.INTERNAL)
    return "\n".join(lines)


@dataclass(frozen=True)
class Launch:
    """A kernel and whose it is."""

    variant: Variant
    kernel: Kernel


def read(text: str, variants: Sequence[Variant]) -> list[Launch]:
    """The launches of a table, in their order; those in no variant's iteration or no stage are left out.

    Raises:
        BenchError: a column is missing, durations are in another unit, or one or a number of registers is no number.
    """
    lines = csv.reader(text.splitlines())
    headers, units = next(lines, []), next(lines, [])
    ranges = next((number for number, name in enumerate(headers) if name.startswith(RANGES)), None)
    missing = [name for name in ("Kernel Name", DURATION, REGISTERS) if name not in headers]
    if missing or ranges is None:
        raise BenchError(f"ncu's table has no column {(missing or [RANGES])[0]}", code=Exit.INTERNAL)
    unit = dict(zip(headers, units, strict=False)).get(DURATION, "")
    if unit not in UNITS_S:
        expected = f"expected one of {', '.join(UNITS_S)}"
        raise BenchError(f"ncu's table gives durations in {unit or 'no unit'}, {expected}", code=Exit.INTERNAL)
    found = []
    for cells in lines:
        if len(cells) != len(headers):
            raise BenchError(f"ncu's table: a line of {len(cells)} cells, expected {len(headers)}", code=Exit.INTERNAL)
        variant, stage = _owner(cells[ranges], variants), _last(STAGE_RANGE.finditer(cells[ranges]))
        if variant is not None and stage is not None:
            found.append(Launch(variant, _kernel(dict(zip(headers, cells, strict=True)), stage, UNITS_S[unit])))
    return found


def _owner(ranges: str, variants: Iterable[Variant]) -> Variant | None:
    return next((one for one in variants if re.search(rf":iteration \d+ {re.escape(one.label)}:", ranges)), None)


def _last(found: Iterable[re.Match[str]]) -> re.Match[str] | None:
    return next(reversed(list(found)), None)


def _kernel(cells: dict[str, str], stage: re.Match[str], unit_s: float) -> Kernel:
    def known(name: str) -> float | None:
        text = cells.get(name, "").replace(",", "")
        return float(text) if NUMBER.fullmatch(text) else None

    def number(name: str) -> float:
        value = known(name)
        if value is None:
            raise BenchError(f"ncu's table: {name}: found {cells[name]!r}, expected a number", code=Exit.INTERNAL)
        return value

    percents = {field: known(name) for field, name in SHARES.items()}  # n/a, nan: a counter that did not count
    shares = {field: None if percent is None else percent / 100 for field, percent in percents.items()}
    return Kernel(
        name=cells["Kernel Name"],
        stage=stage[1],
        layer=int(stage[2]),
        ubatch=int(stage[3]),
        duration_s=number(DURATION) * unit_s,
        registers_per_thread=int(number(REGISTERS)),
        **shares,
    )
