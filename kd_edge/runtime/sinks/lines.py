"""Appends whole lines to a file, even if it is moved, truncated or the disk fills up meanwhile."""

from __future__ import annotations

import errno
import io
import os
import stat
from contextlib import suppress
from pathlib import Path

from kd_edge.runtime.clock import MONOTONIC, Clock

MODE = 0o640
"""Labels of people's actions are not world-readable; the process's umask may restrict them further."""
CHECK_NS = 1_000_000_000
"""How often to check whether the file was moved away."""


class LineFile:
    """Appends lines to a file, a pipe or a character device; existing content stays.

    Args:
        path: Path; symbolic links are not followed.
        max_bytes: A regular file that would grow beyond this is renamed to ``PATH.1``, replacing an earlier one, and a
            new file is started. None: unlimited.
        clock: Decides when to check whether the file was moved away.
    """

    def __init__(self, path: Path, max_bytes: float | None = None, clock: Clock = MONOTONIC) -> None:
        self._path, self._max_bytes, self._clock = path, max_bytes, clock
        self._file: io.FileIO | None = None
        self._status: os.stat_result
        self._bytes = 0
        self._check_ns = 0

    def open(self) -> None:
        """Open or create the file; an incomplete last line, left by a killed process, is terminated.

        Raises:
            OSError: It cannot be opened; ENXIO for a pipe without a reader and for a socket.
        """
        self._file = self._begin()

    def write(self, line: bytes) -> None:
        """Append one line, including its newline: completely, or not at all if a regular file cannot take it.

        Raises:
            OSError: It could not be written.
        """
        if self._is_regular():
            self._make_room(len(line))
        if self._file is None:
            raise ValueError("write to a closed file")
        self._append(self._file, line)

    def close(self) -> None:
        """Close the file; a second call does nothing.

        Raises:
            OSError: What was written before has not arrived.
        """
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _begin(self) -> io.FileIO:
        file = io.FileIO(self._path, "ab", opener=_appending)
        try:
            self._status = os.fstat(file.fileno())
            if stat.S_ISBLK(self._status.st_mode):
                raise OSError(errno.ENOTSUP, "it is a disk")
            self._bytes = self._status.st_size
            self._check_ns = self._clock.now_ns() + CHECK_NS
            if self._is_regular() and _is_torn(self._path):
                self._append(file, b"\n")
        except BaseException:
            file.close()
            raise
        return file

    def _append(self, file: io.FileIO, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):  # a disk that fills up takes a part
                written += file.write(line[written:])
        except OSError:
            if written and self._is_regular():
                _take_back(file, written)
            raise
        self._bytes += written

    def _make_room(self, size: int) -> None:
        """Begin a new file where the old one was moved away, or is full."""
        now_ns = self._clock.now_ns()
        if now_ns < self._check_ns and not self._is_full(size):
            return
        self._check_ns = now_ns + CHECK_NS
        if self._is_moved():
            self.close()
            self.open()
        elif self._is_full(size):
            self._turn_over()

    def _turn_over(self) -> None:
        mode = stat.S_IMODE(self._status.st_mode)
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self.close()
        self._file = file = self._begin()
        with suppress(OSError):  # some memory cards' file systems have no modes
            os.fchmod(file.fileno(), mode)

    def _is_full(self, size: int) -> bool:
        return self._max_bytes is not None and self._bytes > 0 and self._bytes + size > self._max_bytes

    def _is_moved(self) -> bool:
        """Whether the path is now another file or none; otherwise updates the size, in case it was truncated."""
        try:
            status = self._path.lstat()
        except FileNotFoundError:
            return True
        self._bytes = status.st_size
        return not os.path.samestat(status, self._status)

    def _is_regular(self) -> bool:
        return stat.S_ISREG(self._status.st_mode)


def _appending(path: str, _: int) -> int:
    # Opened without O_NONBLOCK, a pipe would wait for its reader.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW, MODE)
    os.set_blocking(descriptor, True)
    return descriptor


def _reading(path: str, _: int) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK)


def _is_torn(path: Path) -> bool:
    """Whether the last line is incomplete; False for an empty or unreadable file."""
    with suppress(OSError), io.FileIO(path, "rb", opener=_reading) as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
    return False


def _take_back(file: io.FileIO, count: int) -> None:
    """Remove the bytes written last, unless another process has appended to them."""
    with suppress(OSError):
        end = file.tell()
        if os.fstat(file.fileno()).st_size == end:
            file.truncate(end - count)
