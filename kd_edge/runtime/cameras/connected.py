"""Cameras whose library blocks for as long as it likes: it does so in a thread of its own, behind a ``Connection``."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, NamedTuple

from kd_edge.artifact import Band
from kd_edge.errors import BadPictureError, CameraError, KdEdgeError
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.cameras.connection import Connection
from kd_edge.runtime.clock import MONOTONIC, Clock, ClockKind
from kd_edge.types import Frame, Image

OPEN_TIMEOUT_MS = 5000
CLOSE_SECONDS = 0.5
"""A thread that hangs inside its library for longer than this is left behind; no second one is started beside it."""


class Words(NamedTuple):
    """How such a camera speaks of itself.

    Attributes:
        hangs: Its thread has not ended since it was closed last.
        expected: What would have been right instead.
        fix: What to look at then.
        ended: It came to its end.
        advice: What to do when nothing comes.
    """

    hangs: str
    expected: str
    fix: str
    ended: str
    advice: str


class ConnectedCamera(ABC):
    """What such cameras have in common; see ``Camera``.

    Args:
        name: Names the source in predictions.
        config: What the user says about it.
        wanted: What the model needs.
        clock: Stamps its frames.
    """

    live = True
    can_vanish = True
    ended = False
    clock_kind: ClockKind = "monotonic"
    words: Words

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted, *, clock: Clock = MONOTONIC) -> None:
        self.name = name
        self.band: Band | None = config.band
        self.dtype: Dtype | None = None
        self.channels: Channels | None = None
        self.fps: float | None = config.fps
        self.timeouts: TimeOuts = config
        self._config, self._wanted, self._clock = config, wanted, clock
        self._open_seconds = (config.open_timeout_ms or OPEN_TIMEOUT_MS) / 1e3
        self._connection: Connection | None = None
        self._count = 0

    def open(self) -> None:
        """Connect and wait for the first picture, which tells dtype and channels."""
        self.close()
        words = self.words
        if self._connection is not None:
            raise self._connection.fault(words.hangs, words.expected, words.fix)
        self._connection = Connection(self.name, self._play, self._explained, ended=words.ended, advice=words.advice)
        try:
            first = self._first(self._connection)
        except BaseException:
            self.close()
            raise
        self.fps = self._config.fps or self._connection.fps
        self.dtype, self.channels = self._kind(first)

    def read(self, timeout_seconds: float) -> Frame | None:
        """The newest picture that was not read yet."""
        if self._connection is None:
            raise CameraError(f"camera {self.name} is closed", "an open camera", "open it first")
        picture = self._connection.take(timeout_seconds)
        if picture is None:
            return None
        image = self._image(self._connection, picture.content)
        frame = Frame(image, picture.stamp_ns, self._count, self.name)
        self._count += 1
        return frame

    def interrupt(self) -> None:
        """End a wait in ``open`` or ``read``; called from another thread."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def close(self) -> None:
        """Disconnect. A thread that does not end in time is left behind until it does."""
        if self._connection is not None and self._connection.close(CLOSE_SECONDS):
            self._connection = None

    def _first(self, connection: Connection) -> Any:
        """The content of the first whole picture."""
        end = time.monotonic() + self._open_seconds
        while (left := end - time.monotonic()) > 0:
            with suppress(BadPictureError):
                picture = connection.take(left)
                if picture is not None:
                    return self._whole(picture.content)
        raise connection.silent(self._open_seconds)

    def _whole(self, content: Any) -> Any:
        """What ``_kind`` is to look at; of packed pictures it is the unpacked one."""
        return content

    @abstractmethod
    def _kind(self, first: Any) -> tuple[Dtype, Channels]:
        """What its frames will be."""

    @abstractmethod
    def _image(self, connection: Connection, content: Any) -> Image:
        """A picture's content as a frame's image.

        Raises:
            BadPictureError: It is damaged.
            CameraError: It is of another kind than the first one.
        """

    @abstractmethod
    def _play(self, connection: Connection) -> None:
        """Connect, hand over pictures while they are wanted, and disconnect; in the connection's thread."""

    @abstractmethod
    def _explained(self, connection: Connection, error: BaseException) -> KdEdgeError:
        """What an exception of the library means."""
