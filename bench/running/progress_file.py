"""The two words through which a running worker tells where it is, without a system call."""

import mmap
from collections.abc import Callable
from pathlib import Path

from bench.running.messages import PROGRESS

NOWHERE = (-1, -1)


def reset(path: Path) -> None:
    """Supervisor's side: make the file, or forget where the last worker was."""
    path.write_bytes(PROGRESS.pack(*NOWHERE))


def read(path: Path) -> tuple[int, int]:
    """Supervisor's side: (variant's index in its case, position of the last op issued), -1 for none."""
    variant_index, position = PROGRESS.unpack(path.read_bytes())
    return variant_index, position


class ProgressFile:
    """Writer's side: maps the file that the supervisor made."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), PROGRESS.size)

    def of(self, variant_index: int) -> Callable[[int], None]:
        """A driver's ``progress``: called with the position of each op before it is issued."""
        pack_into, words = PROGRESS.pack_into, self._map

        def progress(position: int) -> None:
            pack_into(words, 0, variant_index, position)

        return progress

    def clear(self) -> None:
        """No variant is running."""
        PROGRESS.pack_into(self._map, 0, *NOWHERE)
