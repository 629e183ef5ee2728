"""One JSON object per prediction and line, in a file or on standard output."""

from __future__ import annotations

import errno
import io
import json
import stat
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from kd_edge.errors import ConfigError
from kd_edge.files import expanded
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.sinks.lines import LineFile
from kd_edge.runtime.sinks.standard import Standard
from kd_edge.types import Prediction

_FULL = (errno.ENOSPC, errno.EDQUOT)


class JsonlSink:
    """Adds ``Prediction.as_dict`` line by line to a file, at once, so that a reader sees it; see ``LineFile``.

    Args:
        target: Path of a file, a named pipe or a character device.
        max_mb: When the file would grow beyond so many 10^6 bytes it becomes ``PATH.1``, replacing the one before, and
            a new one begins: twice that is all it ever takes. None: it grows as long as the stream runs.
        clock: Says when to look whether another program has moved the file away.
    """

    def __init__(self, target: str, max_mb: float | None = None, clock: Clock = MONOTONIC) -> None:
        self.name = f"jsonl:{target}"
        self._path = expanded(target)
        self._file = LineFile(self._path, None if max_mb is None else max_mb * 1e6, clock)

    def open(self) -> None:
        """Open the file, which is created where there is none.

        Raises:
            ConfigError: It cannot be written.
            OSError: Not yet: nobody reads the named pipe, or the disk is full.
        """
        try:
            self._file.open()
        except (OSError, ValueError) as error:
            code = getattr(error, "errno", None)
            if code in _FULL:
                raise
            if code == errno.ENXIO and _is_pipe(self._path):
                raise OSError(errno.ENXIO, "nobody reads the pipe") from error
            raise _refusal(self.name, error) from error

    def write(self, prediction: Prediction) -> None:
        """Add one line."""
        self._file.write(line(prediction).encode("ascii"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonlStream:
    """Writes ``Prediction.as_dict`` line by line to standard output, which stays open.

    Args:
        stream: What stands for standard output; None where it was closed before the program began.
    """

    name = "jsonl:-"
    reopens = False

    def __init__(self, stream: TextIO | io.TextIOBase | None) -> None:
        self._output = Standard(self.name, stream)

    def open(self) -> None:
        """Make sure that there is somebody to write to.

        Raises:
            ConfigError: Standard output is closed.
        """
        self._output.open()

    def write(self, prediction: Prediction) -> None:
        """Write one line."""
        self._output.write(line(prediction))

    def close(self) -> None:
        """Leave it open for others."""


def line(prediction: Prediction) -> str:
    """A prediction as one line of JSON.

    All of it is ASCII, other characters are escaped: it is one line to every reader, whatever it takes for the end of
    a line, and steers no terminal.
    """
    return json.dumps(prediction.as_dict(), allow_nan=False) + "\n"


def _is_pipe(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISFIFO(path.lstat().st_mode)
    return False


def _refusal(name: str, error: OSError | ValueError) -> ConfigError:
    """What is wrong with a path."""
    code = getattr(error, "errno", None)
    if code == errno.ELOOP:
        return ConfigError(
            f"sink {name} is a symbolic link", "the path of the file itself", "write it out; jsonl:- is standard output"
        )
    why = "it is a socket" if code == errno.ENXIO else getattr(error, "strerror", None) or error
    return ConfigError(
        f"sink {name} cannot be written ({why})",
        "a path in a writable folder",
        "create the folder or choose another path",
    )
