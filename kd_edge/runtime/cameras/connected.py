"""Base class of cameras whose library may block indefinitely: it runs in its own thread, behind a ``Connection``."""

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
"""A thread that hangs in its library for longer than this is abandoned; no second one is started alongside it."""


class ErrorTexts(NamedTuple):
    """Texts for a camera's errors.

    Attributes:
        hangs: Found: its thread has not ended since the camera was last closed.
        expected: Expected instead of that.
        fix: What to check in that case.
        ended: Found: the stream has ended.
        advice: What to do when no picture arrives.
    """

    hangs: str
    expected: str
    fix: str
    ended: str
    advice: str


class ConnectedCamera(ABC):
    """Common part of these cameras; see ``Camera``.

    Args:
        name: Source name in predictions.
        config: Its configuration.
        wanted: What the model needs.
        clock: Clock that stamps its frames.
    """

    live = True
    can_vanish = True
    ended = False
    clock_kind: ClockKind = "monotonic"
    texts: ErrorTexts

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
        """Connect and wait for the first picture, which determines dtype and channels."""
        self.close()
        texts = self.texts
        if self._connection is not None:
            raise self._connection.fault(texts.hangs, texts.expected, texts.fix)
        self._connection = Connection(self.name, self._play, self._explained, ended=texts.ended, advice=texts.advice)
        try:
            first = self._first(self._connection)
        except BaseException:
            self.close()
            raise
        self.fps = self._config.fps or self._connection.fps
        self.dtype, self.channels = self._kind(first)

    def read(self, timeout_seconds: float) -> Frame | None:
        """Return the newest picture that was not read yet."""
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
        """End a wait in ``open`` or ``read`` from another thread."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def close(self) -> None:
        """Disconnect; a thread that does not end in time is abandoned until it does."""
        if self._connection is not None and self._connection.close(CLOSE_SECONDS):
            self._connection = None

    def _first(self, connection: Connection) -> Any:
        """Return the content of the first intact picture."""
        end = time.monotonic() + self._open_seconds
        while (left := end - time.monotonic()) > 0:
            with suppress(BadPictureError):
                picture = connection.take(left)
                if picture is not None:
                    return self._whole(picture.content)
        raise connection.silent(self._open_seconds)

    def _whole(self, content: Any) -> Any:
        """Return the content for ``_kind``, decoded if necessary."""
        return content

    @abstractmethod
    def _kind(self, first: Any) -> tuple[Dtype, Channels]:
        """Return dtype and channels of the frames, from the first picture."""

    @abstractmethod
    def _image(self, connection: Connection, content: Any) -> Image:
        """Convert a picture's content to a frame's image.

        Raises:
            BadPictureError: The picture is damaged.
            CameraError: The picture is of another kind than the first one.
        """

    @abstractmethod
    def _play(self, connection: Connection) -> None:
        """Connect, hand over pictures while they are wanted, and disconnect; runs in the connection's thread."""

    @abstractmethod
    def _explained(self, connection: Connection, error: BaseException) -> KdEdgeError:
        """Translate an exception of the library."""
