"""Writes one camera's frames of one clip in its own thread: lossless pixels, and a file of time stamps next to them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from kd_edge.data.readers.sidecar import HEADER, beside
from kd_edge.errors import ConfigError, printable, reason
from kd_edge.files import new_file
from kd_edge.record.repair import repaired
from kd_edge.runtime.cameras.lossless import LosslessWriter
from kd_edge.types import Frame

SYNC_SECONDS = 1.0
"""Recording time that a power cut may lose. A killed process loses one frame, or half a second of very small ones."""
STUCK_SECONDS = 30.0
"""A disk that accepts no data for so long counts as failed."""
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has none


class FrameWriter:
    """Writes frames in order; a frame is dropped if the queue is full.

    Args:
        path: A new ``.mkv``; its time stamps are written to a file next to it.
        fps: Approximate frame rate, for video players.
        most_bytes: Memory for frames waiting to be written; one frame is always accepted.

    Attributes:
        path: As given.
        stamps_ns: Capture times of the frames written so far; the list grows.
        written_bytes: Size of the video so far.
        fault: Why writing ended early, as one line; None if it did not.

    Raises:
        ConfigError: The files cannot be created.
    """

    def __init__(self, path: Path, fps: float, most_bytes: int) -> None:
        self.path = path
        self.stamps_ns: list[int] = []
        self.written_bytes = 0
        self.fault: str | None = None
        self._fps, self._most_bytes = fps, most_bytes
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0
        self._is_closing = False
        self._changed = threading.Condition()
        self._video = _new_file(path)
        try:
            self._stamps = _new_file(beside(path))
        except BaseException:
            self._video.close()
            path.unlink()
            raise
        self._thread = threading.Thread(target=self._run, name=f"kd-edge record {path.name}", daemon=True)
        self._thread.start()

    def put(self, frame: Frame) -> bool:
        """Queue a frame, whose image must not be changed afterwards; return whether there was room."""
        with self._changed:
            has_room = not self._queue or self._queued_bytes + frame.image.nbytes <= self._most_bytes
            if not has_room or self._is_closing or self.fault is not None:
                return False
            self._queue.append(frame)
            self._queued_bytes += frame.image.nbytes
            self._changed.notify()
            return True

    def close(self) -> list[int]:
        """Write queued frames and finish the file, in bounded time.

        Returns:
            Capture times of the frames in the file, ns; empty if it has none and was removed.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(STUCK_SECONDS)
        if self.is_stuck:
            self.fault = f"the disk accepted no data for {STUCK_SECONDS:.0f} s"
            return []  # its journal stays, and the next session repairs the file
        return self.stamps_ns

    @property
    def is_stuck(self) -> bool:
        """Whether it is still writing after ``close``."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self._video, self._stamps:
                self._write_all()
        except BaseException as error:  # keep complete frames, whatever the error
            self._broke(error)

    def _write_all(self) -> None:
        self._stamps.write(f"{HEADER}\n".encode("ascii"))
        video: LosslessWriter | None = None
        synced = time.monotonic()
        try:
            while (frame := self._next()) is not None:
                video = video or LosslessWriter(self._video, frame.image, self._fps)
                first_ns = self.stamps_ns[0] if self.stamps_ns else frame.captured_ns
                video.add(frame.image, frame.captured_ns - first_ns)
                self._stamps.write(f"{frame.captured_ns}\n".encode("ascii"))
                self.stamps_ns.append(frame.captured_ns)
                self.written_bytes = self._video.tell()
                if time.monotonic() - synced >= SYNC_SECONDS:
                    _sync(self._video.fileno())
                    _sync(self._stamps.fileno())
                    synced = time.monotonic()
            if video is not None:
                video.finish()
                self.written_bytes = os.fstat(self._video.fileno()).st_size
        except BaseException:
            if video is not None:
                with suppress(Exception):  # the same error prevents writing the end
                    video.close()
            raise

    def _next(self) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            if not self._queue:
                return None
            frame = self._queue.popleft()
            self._queued_bytes -= frame.image.nbytes
            return frame

    def _broke(self, error: BaseException) -> None:
        text = getattr(error, "strerror", None) or reason(error)
        with self._changed:
            self.fault = printable(str(text))
            self._queue.clear()
        self.stamps_ns = []
        with suppress(OSError):
            self.stamps_ns = repaired(self.path)


def _new_file(path: Path) -> BinaryIO:
    """Create a new unbuffered file, so that written data survives a crash of the process."""
    try:
        return new_file(path, buffering=0)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be created ({error.strerror})", "a writable folder", "choose another --out, or free space"
        ) from error
