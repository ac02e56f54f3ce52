"""A run folder as others read it: where its files are, and the Trials that count. Writing is run_writer's job."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import lines
from bench.errors import BenchError
from bench.lines import Line
from bench.quick_record import QuickReader
from bench.results import Trial, UnreadableTrialError, from_record
from bench.strict_json import distinct_keys

if TYPE_CHECKING:
    from bench.config import SweepConfig

RESULTS = "results.jsonl"
CONFIG = "config.resolved.yaml"
ENVIRONMENT = "environment.json"
WORKER_LOG = "worker.log"


@dataclass(frozen=True)
class RunFolder:
    """One sweep's results; reading takes no lock, so a running sweep can be looked at."""

    path: Path

    @property
    def results_path(self) -> Path:
        return self.path / RESULTS

    @property
    def is_large(self) -> bool:
        """Whether several processes read it sooner than one."""
        return lines.is_large(self.results_path)

    @property
    def config_path(self) -> Path:
        return self.path / CONFIG

    @property
    def environment_path(self) -> Path:
        return self.path / ENVIRONMENT

    @property
    def worker_log_path(self) -> Path:
        """What the workers and their libraries printed."""
        return self.path / WORKER_LOG

    def trials(self, *, times_only: bool = False) -> list[Trial]:
        """The last Trial of each (case_id, pass_index), in the order in which the pairs first appeared.

        Args:
            times_only: leave out what no comparison of two runs reads (bench.quick_record): most of the memory.

        Raises:
            BenchError: a line that is no Trial, named by file and line. A last line without its newline is torn (or
                being written) and does not count.
        """
        if not self.results_path.exists():
            return []
        return list(self._latest(enumerate(lines.read(self.results_path, times_only), start=1)).values())

    def trials_on(self, some: Sequence[Line], reader: QuickReader) -> dict[int, Trial]:
        """The same of these lines, by the number of the line on which the case and pass first appeared.

        Args:
            some: all of some cases (bench.lines.by_case), in order.
            reader: what is equal in all that it reads is one object.

        Raises:
            BenchError: as ``trials``.
        """
        return self._latest((line.number, found) for line, found in lines.read_some(self.results_path, some, reader))

    def _latest(self, numbered: Iterable[tuple[int, Trial | bytes]]) -> dict[int, Trial]:
        first: dict[tuple[str, int], int] = {}
        latest: dict[int, Trial] = {}
        for number, found in numbered:
            trial = self._explained(found, number) if isinstance(found, bytes) else found
            latest[first.setdefault((trial.case_id, trial.pass_index), number)] = trial
        return latest

    def torn_line(self) -> str | None:
        """What to say of a last line without its newline, which no Trial comes from; None if there is none."""
        if not self.results_path.exists():
            return None
        with self.results_path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return None
            file.seek(-1, os.SEEK_END)
            if file.read(1) == b"\n":
                return None
            file.seek(0)
            number = sum(1 for _ in file)
        return (
            f"{self.results_path}:{number}: unfinished last line left out"
            " (a sweep is writing it, or was cut off: --resume measures it again)"
        )

    def _explained(self, line: bytes, number: int) -> Trial:
        try:
            return from_record(json.loads(line, object_pairs_hook=distinct_keys))
        except UnreadableTrialError as error:
            raise BenchError(f"{self.results_path}:{number}: not a readable Trial: {error}") from error
        except (ValueError, RecursionError) as error:  # JSON or UTF-8
            raise BenchError(
                f"{self.results_path}:{number}: not a line of JSON: {error}"
                f" (delete line {number}: --resume measures it again)"
            ) from error

    def config(self) -> "SweepConfig":
        """The resolved sweep file.

        Raises:
            BenchError: it does not load.
        """
        from bench.config import load

        return load(self.config_path)

    def environment(self) -> dict[str, Any]:
        """What was recorded of machine, software and command when the run began.

        Raises:
            BenchError: missing or no JSON object.
        """
        path = self.environment_path
        try:
            stored = json.loads(path.read_bytes(), object_pairs_hook=distinct_keys)
        except (OSError, ValueError, RecursionError) as error:
            raise BenchError(f"{path}: cannot be read: {error}") from error
        if not isinstance(stored, dict):
            raise BenchError(f"{path}: found {type(stored).__name__}, expected an object")
        return stored


def open_run(path: Path) -> RunFolder:
    """A run folder to read.

    Raises:
        BenchError: ``path`` is no folder, or holds no results.
    """
    if path.is_file():
        raise BenchError(
            f"{path}: a file, expected {f'the run folder: {path.parent}' if path.name == RESULTS else 'a run folder'}"
        )
    if not path.is_dir():
        raise BenchError(f"{path}: no such run folder")
    if not (path / RESULTS).is_file():
        raise BenchError(f"{path}: no run folder, it holds no {RESULTS}")
    return RunFolder(path)
