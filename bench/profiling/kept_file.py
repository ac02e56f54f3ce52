"""The file that a profile leaves in its folder for reports: read by version, faults told in one line. Torch-free."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bench.errors import BenchError

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class _Versioned:
    """All that is read of a file before it is known to be of this version; other fields may have changed."""

    version: Any = None


_VERSION = TypeAdapter(_Versioned)


def read(path: Path, kind: TypeAdapter[Kept], version: int, what: str) -> Kept:
    """The file's content.

    Args:
        kind: what it holds, with a ``version``.
        version: the one that is read.
        what: it holds, for messages.

    Raises:
        BenchError: it is not there, of another version, or no such file.
    """
    try:
        text = path.read_bytes()
        found = _VERSION.validate_json(text).version
        if found not in (None, version):
            raise BenchError(f"{path}: found version {found}, expected {version}; profile the case again")
        return kind.validate_json(text)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BenchError(f"{path}: no readable {what}: {where}: {first['msg']}") from error


def all_readable(folders: Iterable[Path], load: Callable[[Path], Kept]) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
    """What ``load`` reads of each folder, by name, and what is wrong with those that cannot be read."""
    found: list[Kept] = []
    wrong: list[str] = []
    for folder in sorted(folders):
        try:
            found.append(load(folder))
        except BenchError as error:
            wrong += error.problems
    return tuple(found), tuple(wrong)
