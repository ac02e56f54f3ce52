"""What a profile leaves in its folder: raw reports, and analysis.json, all that a report shows of it. Torch-free."""

import gzip
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from bench.cases import Case
from bench.errors import BenchError
from bench.profiling import kept_file
from bench.profiling.kernels import KERNELS
from bench.profiling.request import Request, Tool
from bench.timeline.analysis import Analysis, measure, runs_of
from bench.timeline.attribute import attribute
from bench.timeline.read import ANALYSIS, read
from bench.timeline.strip import Strip, strip
from moe_impl.options import Variant

TIMELINES = "timelines"
"""Of a run folder: one folder a profile."""
VERSION = 1
TEXT_SUFFIXES = (".json",)
"""Of raw reports that are kept gzipped."""


@dataclass(frozen=True)
class Profiled:
    """One variant's timeline."""

    variant: Variant
    raw: str
    """Its raw report, in the same folder."""
    analysis: Analysis
    strip: Strip


@dataclass(frozen=True)
class Pair:
    """What explains an overlapped variant: its T1 and T2s, where they were profiled."""

    on: Profiled
    off: Profiled | None
    serial: Profiled | None

    @property
    def all(self) -> tuple[Profiled, ...]:
        """T1, T2s, T2o: those that are there."""
        return tuple(one for one in (self.off, self.serial, self.on) if one is not None)

    def dilation(self, stage: str) -> float | None:
        """Busy time in T2o over that in T2s; None where either has none."""
        if self.serial is None:
            return None
        on, serial = (one.analysis.stages_ns.get(stage) for one in (self.on, self.serial))
        return on / serial if on and serial else None


@dataclass(frozen=True)
class Kept:
    """A profile of one case."""

    case: Case
    tool: Tool
    command: str
    """Makes it again."""
    profiled: tuple[Profiled, ...]
    version: int = VERSION
    folder: str = ""
    """Its folder's name; told by where it is read."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """One for each overlapped variant."""
        by_variant = {one.variant: one for one in self.profiled}
        return tuple(
            Pair(one, by_variant.get(one.variant.unsplit()), by_variant.get(one.variant.split_serial()))
            for one in self.profiled
            if one.variant.role == "T2o"
        )

    @property
    def missing(self) -> tuple[Variant, ...]:
        """Variants of the case whose work the reports do not tell apart from others'."""
        there = {one.variant for one in self.profiled}
        return tuple(variant for variant in self.case.variants if variant not in there)


_KEPT = TypeAdapter(Kept)


def keep(request: Request, files: Sequence[Path], command: str) -> Kept:
    """Analyse what a tool left, gzip what of it is text, and write ANALYSIS beside it.

    Args:
        request: what was profiled.
        files: what drive.profile returned: one a variant from ``torch``, one of all named runs from ``nsys``.
        command: makes the profile again.

    Raises:
        BenchError: a report that cannot be read.
    """
    profiled: list[Profiled] = []
    for index, file in enumerate(files):
        raw = gzipped(file) if file.suffix in TEXT_SUFFIXES else file
        for name, found in runs_of(attribute(read(raw))):
            owners = [v for v in request.case.variants if v.label == name] if request.tool == "nsys" else []
            if request.tool == "torch":
                owners = [request.case.variants[index]]
            if len(owners) == 1:
                analysis = replace(measure(name, found), source=raw.name)
                profiled.append(Profiled(owners[0], raw.name, analysis, strip(found)))
    folder = Path(request.folder)
    kept = Kept(request.case, request.tool, command, tuple(profiled), folder=folder.name)
    (folder / ANALYSIS).write_bytes(_KEPT.dump_json(kept))
    return kept


def gzipped(file: Path) -> Path:
    """``file`` in its place as ``file.gz``; the same bytes for the same text."""
    packed = file.with_name(f"{file.name}.gz")
    with file.open("rb") as text, packed.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as out:
        shutil.copyfileobj(text, out)
    file.unlink()
    return packed


def load(folder: Path) -> Kept:
    """What :func:`keep` wrote.

    Raises:
        BenchError: it is not there, of another version, or no such file.
    """
    path = folder / ANALYSIS
    kept = kept_file.read(path, _KEPT, VERSION, "analysis")
    if not all(one.analysis.iterations and one.strip.lanes for one in kept.profiled):
        raise BenchError(f"{path}: no readable analysis: a variant without iterations or lanes; profile the case again")
    return replace(kept, folder=folder.name)


def profiles_of(run: Path) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
    """A run's timelines by folder name, and what is wrong with those that cannot be read."""
    folders = [path for path in (run / TIMELINES).glob("*") if path.is_dir() and not (path / KERNELS).exists()]
    return kept_file.all_readable(folders, load)
