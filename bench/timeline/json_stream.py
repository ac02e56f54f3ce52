"""The events of a Chrome trace one by one, in constant memory: traces of minutes are larger than a laptop's."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bench.errors import BenchError

CHUNK = 1 << 22
LONGEST = 1 << 22
"""Characters of an event: what is still no JSON so far on never will be."""
ARRAY = '"traceEvents"'
BLANK = " \t\r\n"
GZIP_MAGIC = b"\x1f\x8b"


def events(path: Path) -> Iterator[dict[str, Any]]:
    """Each object of ``traceEvents`` (or of a bare array), in the file's order.

    Raises:
        BenchError: no such file, no such array, or text that is no JSON, with its place in the file.
    """
    if not path.is_file():
        raise BenchError(f"{path}: no such file")
    try:
        with _opened(path) as file:
            yield from _Reader(path, file).events()
    except (OSError, EOFError, UnicodeDecodeError) as error:  # a torn gzip file raises EOFError
        raise BenchError(f"{path}: cannot be read: {error}") from error


def _opened(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_MAGIC
    return gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8")


class _Reader:
    """A window over the text: what was read and not yet consumed."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self._path, self._file = path, file
        self._text, self._at, self._before = "", 0, 0  # characters of the file before the window
        self._decode = json.JSONDecoder().raw_decode

    def events(self) -> Iterator[dict[str, Any]]:
        self._find_array()
        self._skip(BLANK)
        while self._peek() != "]":
            began = self._before + self._at
            value = self._value()
            if not isinstance(value, dict):
                raise BenchError(f"{self._path}: an event is no object (near character {began})")
            yield value
            self._skip(BLANK)
            if self._peek() == ",":
                self._at += 1
                self._skip(BLANK)
            elif self._peek() != "]":
                raise self._broken("has no comma between two events")

    def _more(self) -> bool:
        chunk = self._file.read(CHUNK)
        self._before += self._at
        self._text, self._at = self._text[self._at :] + chunk, 0
        return bool(chunk)

    def _peek(self) -> str:
        if self._at >= len(self._text) and not self._more():
            raise self._broken("ends in the middle of its events")
        return self._text[self._at]

    def _skip(self, letters: str) -> None:
        while self._peek() in letters:
            self._at += 1

    def _find_array(self) -> None:
        self._skip(BLANK + "\ufeff")
        if self._peek() == "[":
            self._at += 1
            return
        if self._peek() != "{":
            raise self._broken("is no JSON object or array")
        while True:
            while (found := self._text.find(ARRAY, self._at)) < 0:
                self._at = max(self._at, len(self._text) - len(ARRAY))
                if not self._more():
                    raise BenchError(f"{self._path}: no Chrome trace, it has no {ARRAY}")
            self._at = found + len(ARRAY)
            self._skip(BLANK)
            if self._peek() == ":":  # else it is somebody's text
                break
        self._at += 1
        self._skip(BLANK)
        if self._peek() != "[":
            raise self._broken(f"{ARRAY} is no array")
        self._at += 1

    def _value(self) -> Any:
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except RecursionError as error:
                raise self._broken("is nested too deeply") from error
            except ValueError as error:
                wrong_at = getattr(error, "pos", self._at)
                # Near the end of the window it may only be unfinished.
                if len(self._text) - wrong_at > LONGEST or not self._more():
                    raise self._broken(f"is no JSON: {getattr(error, 'msg', error)}", wrong_at) from error
                continue
            self._at = end
            return value

    def _broken(self, what: str, at: int | None = None) -> BenchError:
        return BenchError(f"{self._path}: {what} (near character {self._before + (self._at if at is None else at)})")
