"""Standard output, which cannot be opened again."""

from __future__ import annotations

import errno
import io
import os
import select
from typing import TextIO

from kd_edge.errors import ConfigError


class Standard:
    """A text stream that somebody else opened and closes; what is written is flushed.

    Args:
        name: Of the sink that writes to it, for messages.
        stream: None where it was closed before the program began.
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
        """Write and flush text; characters that the stream's encoding does not have are escaped.

        Raises:
            OSError: Nobody reads it any more, or the disk is full.
            ConfigError: It was closed meanwhile.
        """
        stream = self.open()
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()

    def check(self) -> None:
        """Make sure that somebody reads it still, where there is nothing to write: that may last for hours.

        Raises:
            OSError: Nobody does.
        """
        try:
            descriptor = self.open().fileno()
        except io.UnsupportedOperation:  # a stream in memory
            return
        poller = select.poll()
        poller.register(descriptor, 0)  # what is asked for is nothing; a broken end is reported all the same
        if poller.poll(0):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
