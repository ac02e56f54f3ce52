"""A profile file, whichever tool made it."""

from pathlib import Path

from bench.errors import BenchError
from bench.timeline import kineto, nsys
from bench.timeline.model import Profile

SQLITE_MAGIC = b"SQLite format 3\x00"
REPORT_SUFFIXES = (".nsys-rep", ".qdstrm")


def read(path: Path) -> Profile:
    """An Nsight Systems SQLite export or a torch.profiler trace, told apart by their first bytes.

    Raises:
        BenchError: neither, or one that cannot be read.
    """
    if path.suffix in REPORT_SUFFIXES:
        raise BenchError(f"{path}: export it first: nsys export --type sqlite -o {path.stem}.sqlite {path}")
    try:
        with path.open("rb") as file:
            head = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror or error}") from error
    return nsys.read(path) if head == SQLITE_MAGIC else kineto.read(path)
