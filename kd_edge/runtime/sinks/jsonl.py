"""One JSON object per prediction and line, in a file or on standard output."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TextIO

from kd_edge.errors import ConfigError
from kd_edge.types import Prediction


class JsonlSink:
    """Writes ``Prediction.as_dict`` line by line; every line is flushed, so a reader sees it at once.

    Args:
        target: Path of the file, replaced when it exists; ``-`` is ``stdout``.
        stdout: What ``-`` means.
    """

    def __init__(self, target: str, stdout: TextIO | io.TextIOBase) -> None:
        self.name = f"jsonl:{target}"
        self._path = None if target == "-" else Path(target).expanduser()
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
        self._file.write(json.dumps(prediction.as_dict(), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._path is not None:
            self._file.close()
