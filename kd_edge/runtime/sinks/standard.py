"""Standard output, which cannot be reopened."""

from __future__ import annotations

import errno
import io
import os
import select
from typing import TextIO

from kd_edge.errors import ConfigError


class Standard:
    """A text stream owned by others; every write is flushed.

    Args:
        name: Name of the sink, for messages.
        stream: The stream; None if it was closed before the program started.
    """

    def __init__(self, name: str, stream: TextIO | io.TextIOBase | None) -> None:
        self._name, self._stream = name, stream

    def open(self) -> TextIO | io.TextIOBase:
        """The stream.

        Raises:
            ConfigError: It is closed.
        """
        if self._stream is None or self._stream.closed:
            raise ConfigError(
                f"sink {self._name} has no standard output (it is closed)",
                "a terminal, a pipe or a file",
                "leave the sink out, or start kd-edge with >/dev/null",
            )
        return self._stream

    def write(self, text: str) -> None:
        """Write and flush text; characters missing from the stream's encoding are escaped.

        Raises:
            OSError: There is no reader any more, or the disk is full.
            ConfigError: The stream was closed.
        """
        stream = self.open()
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()

    def check(self) -> None:
        """Check that there is still a reader when there is nothing to write, which may last for hours.

        Raises:
            OSError: There is none.
        """
        try:
            descriptor = self.open().fileno()
        except io.UnsupportedOperation:  # a stream in memory
            return
        poller = select.poll()
        poller.register(descriptor, 0)  # no events requested; a broken pipe is always reported
        if poller.poll(0):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
