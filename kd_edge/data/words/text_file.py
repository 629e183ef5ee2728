"""Text files of word vectors, read line by line, so that memory is needed only for the requested words.

The formats are GloVe's (``word v v v``) and word2vec's (the same after a line ``N D``), also gzipped.

Sources: Pennington, Socher and Manning, "GloVe", EMNLP 2014; Mikolov et al., "Efficient estimation of word
representations in vector space", 2013.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kd_edge.errors import DataError
from kd_edge.types import Float32

Progress = Callable[[int, int], None]
"""Called with (bytes read so far, total number of bytes)."""

_LONGEST_LINE = 1 << 20  # bytes; GloVe's are below 4 KiB
_PROGRESS_LINES = 1 << 12
_GZIP = b"\x1f\x8b"
_FOREIGN = {b"PK\x03\x04": "a zip archive: unzip it", b"\x93NUM": "an array without words"}

# Result of the last reading, because a training run requests the same words twice and a big file takes a minute.
_last: dict[tuple[Path, int, int, frozenset[str]], dict[str, Float32]] = {}


class TextVectors:
    """A text file of word vectors.

    Args:
        path: The text file.
        progress: Called now and then with the progress of reading.

    Raises:
        DataError: The file is missing, or not one of word vectors.
    """

    takes_phrases = False

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.path = path
        self.source = path.name
        self._progress = progress
        with _opened(path) as (lines, _):
            first = _line(lines, path, 1).split()
        self._header = len(first) == 2 and all(field.isdigit() for field in first)
        self._size = int(first[1]) if self._header else len(first) - 1
        if self._size < 1:
            raise _fault(path, 1, f"{len(first)} fields, but a word and its values are at least 2")

    @property
    def size(self) -> int:
        """See ``WordVectors.size``."""
        return self._size

    def vectors(self, words: Collection[str]) -> dict[str, Float32]:
        """See ``WordVectors.vectors``; every line up to the last requested word is checked."""
        stat = self.path.stat()
        key = (self.path.resolve(), stat.st_size, stat.st_mtime_ns, frozenset(words))
        if (found := _last.get(key)) is None:
            found = self._read(words)
            _last.clear()
            _last[key] = found
        return dict(found)

    def _read(self, words: Collection[str]) -> dict[str, Float32]:
        wanted = {word.encode(): word for word in words}
        found: dict[str, Float32] = {}
        total = self.path.stat().st_size
        with _opened(self.path) as (lines, raw):
            number = 0
            if self._header:
                lines.readline(_LONGEST_LINE)
                number = 1
            while wanted and (line := _line(lines, self.path, number + 1)):
                number += 1
                token, _, values = line.partition(b" ")
                surplus = values.count(b" ") + 1 - self._size
                if surplus < 0 and line.strip():
                    raise self._wrong_size(number, values)
                if token in wanted and (surplus == 0 or self._is_number(values)):
                    if surplus:
                        raise self._wrong_size(number, values)
                    found[wanted.pop(token)] = _parsed(values, self.path, number)
                if self._progress is not None and number % _PROGRESS_LINES == 0:
                    self._progress(raw.tell(), total)
        if self._progress is not None:
            self._progress(total, total)
        return found

    def _wrong_size(self, number: int, values: bytes) -> DataError:
        return _fault(self.path, number, f"{len(values.split())} values, not {self._size}")

    @staticmethod
    def _is_number(values: bytes) -> bool:
        """Whether the text begins with a number; the line "at name@domain 0.1" is not of the word "at"."""
        try:
            float(values.split(None, 1)[0])
        except ValueError:
            return False
        return True


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file's uncompressed text, and the file itself."""
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
            raw.seek(0)
            if start in _FOREIGN:
                raise DataError(
                    f"{path} is {_FOREIGN[start]}", "a text file of word vectors, plain or gzipped", "name such a file"
                )
            with gzip.GzipFile(fileobj=raw) if start[:2] == _GZIP else raw as lines:
                yield lines, raw  # type: ignore[misc]
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error})", "a whole gzip file", "fetch it again") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error})", "a text file of word vectors", "check the path"
        ) from error


def _line(lines: BinaryIO, path: Path, number: int) -> bytes:
    """Read the next line without its end; empty after the last one."""
    line = lines.readline(_LONGEST_LINE)
    if len(line) == _LONGEST_LINE:
        raise _fault(path, number, "no end within a MiB: not a text file")
    return line.rstrip() if line.strip() or not line else b" "


def _parsed(values: bytes, path: Path, number: int) -> Float32:
    try:
        with np.errstate(over="ignore"):  # overflow becomes infinite, which is reported below
            vector = np.array(values.split(), dtype=np.float32)
    except ValueError as error:
        raise _fault(path, number, f"a value is not a number ({error})") from error
    if not np.isfinite(vector).all():
        raise _fault(path, number, "a value is not finite")
    return vector


def _fault(path: Path, number: int, what: str) -> DataError:
    return DataError(
        f"{path}, line {number}: {what}",
        "a word and the same number of values in every line",
        "fetch the file again",
    )
