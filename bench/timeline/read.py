"""A profile file, whichever tool made it."""

from pathlib import Path

from bench.errors import BenchError
from bench.timeline import kineto, nsys
from bench.timeline.model import Profile

SQLITE_MAGIC = b"SQLite format 3\x00"
REPORT_SUFFIXES = (".nsys-rep", ".qdstrm")
ANALYSIS = "analysis.json"
"""What ``bench profile`` writes beside the profiles it keeps: their metrics, no profile."""
PROFILES = ("*.sqlite", "*.json.gz")
"""What a kept one is called."""
DEPTH = 3
"""Folders below one that is searched: a run folder's profiles lie two deep."""
SHOWN = 3


def read(path: Path) -> Profile:
    """An Nsight Systems SQLite export or a torch.profiler trace, told apart by their first bytes.

    Raises:
        BenchError: neither, or one that cannot be read.
    """
    if path.suffix in REPORT_SUFFIXES:
        raise BenchError(f"{path}: export it first: nsys export --type sqlite -o {path.stem}.sqlite {path}")
    if path.is_dir():
        raise BenchError(f"{path}: is a directory, expected a profile{_such_as(path, DEPTH)}")
    if path.name == ANALYSIS and path.is_file():
        raise BenchError(f"{path}: metrics of a profile, expected the profile itself{_such_as(path.parent, 1)}")
    try:
        with path.open("rb") as file:
            head = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror or error}") from error
    return nsys.read(path) if head == SQLITE_MAGIC else kineto.read(path)


def _such_as(folder: Path, depth: int) -> str:
    """``, such as x/nsys.sqlite``: the first profiles in a folder; nothing where there is none."""
    patterns = [f"{'*/' * below}{name}" for below in range(depth) for name in PROFILES]
    found = [str(path) for pattern in patterns for path in sorted(folder.glob(pattern))]
    return f", such as {' or '.join(found[:SHOWN])}" if found else ""
