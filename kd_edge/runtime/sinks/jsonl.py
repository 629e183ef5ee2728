"""One JSON object per prediction and line, in a file or on standard output."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TextIO

from kd_edge.errors import ConfigError
from kd_edge.files import expanded
from kd_edge.types import Prediction


class JsonlSink:
    """Writes ``Prediction.as_dict`` line by line; every line is flushed, so a reader sees it at once.

    Args:
        target: Path of the file, replaced when it exists; ``-`` is ``stdout``.
        stdout: What ``-`` means.
        max_mb: When the file would grow beyond so many 10^6 bytes it becomes ``PATH.1``, replacing the one before, and
            a new one begins: twice that is all it ever takes. None: it grows as long as the stream runs.
    """

    def __init__(self, target: str, stdout: TextIO | io.TextIOBase, max_mb: float | None = None) -> None:
        self.name = f"jsonl:{target}"
        self._max_bytes = None if max_mb is None else max_mb * 1e6
        self._bytes = 0
        self._path = None if target == "-" else expanded(target)
        self._file: TextIO | io.TextIOBase = stdout

    def open(self) -> None:
        """Create the file."""
        if self._path is None:
            return
        try:
            self._file = self._path.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"sink {self.name} cannot be written ({error.strerror})",
                "a path in a writable folder",
                "create the folder or choose another path",
            ) from error

    def write(self, prediction: Prediction) -> None:
        """Append one line."""
        line = json.dumps(prediction.as_dict(), ensure_ascii=False) + "\n"
        size = len(line.encode())
        if self._path is not None and self._max_bytes is not None and self._bytes + size > self._max_bytes:
            self._turn_over(self._path)
        self._file.write(line)
        self._file.flush()
        self._bytes += size

    def _turn_over(self, path: Path) -> None:
        self._file.close()
        path.replace(path.with_name(f"{path.name}.1"))
        self._file = path.open("w", encoding="utf-8")
        self._bytes = 0

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._path is not None:
            self._file.close()
