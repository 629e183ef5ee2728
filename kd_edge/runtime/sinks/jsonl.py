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
    """Appends ``Prediction.as_dict`` as a line to a file, unbuffered; see ``LineFile``.

    Args:
        target: Path of a file, a named pipe or a character device.
        max_mb: A file that would grow beyond this many 10^6 bytes is renamed to ``PATH.1``, replacing an earlier one,
            and a new file is started: at most twice that in total. None: unlimited.
        clock: Decides when to check whether another program has moved the file away.
    """

    def __init__(self, target: str, max_mb: float | None = None, clock: Clock = MONOTONIC) -> None:
        self.name = f"jsonl:{target}"
        self._path = expanded(target)
        self._file = LineFile(self._path, None if max_mb is None else max_mb * 1e6, clock)

    def open(self) -> None:
        """Open the file, creating it if necessary.

        Raises:
            ConfigError: It cannot be written.
            OSError: Not available yet: nobody reads the named pipe, or the disk is full.
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
        """Append one line."""
        self._file.write(line(prediction).encode("ascii"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class JsonlStream:
    """Writes ``Prediction.as_dict`` line by line to standard output, which stays open.

    Args:
        stream: Standard output; None if it was closed before the program started.
    """

    name = "jsonl:-"
    reopens = False

    def __init__(self, stream: TextIO | io.TextIOBase | None) -> None:
        self._output = Standard(self.name, stream)

    def open(self) -> None:
        """Check that standard output is open.

        Raises:
            ConfigError: Standard output is closed.
        """
        self._output.open()

    def write(self, prediction: Prediction) -> None:
        """Write one line."""
        self._output.write(line(prediction))

    def close(self) -> None:
        """Do nothing: standard output stays open."""


def line(prediction: Prediction) -> str:
    """A prediction as one line of JSON.

    Pure ASCII with other characters escaped: a single line for every reader, whatever it accepts as a line end, and
    free of terminal control sequences.
    """
    return json.dumps(prediction.as_dict(), allow_nan=False) + "\n"


def _is_pipe(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISFIFO(path.lstat().st_mode)
    return False


def _refusal(name: str, error: OSError | ValueError) -> ConfigError:
    """The error for a path that cannot be opened."""
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
