"""Frames on their way from a capture thread to whoever labels them, and where what they show does not go on."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from kd_edge.runtime.memory import START
from kd_edge.types import Cause, Frame


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a stream does not go on as it was: another cut begins another window.

    Attributes:
        number: 0 at the start; each cut has a larger one than those before.
        cause: What happened there.
    """

    number: int = 0
    cause: Cause = START

    def next(self, cause: Cause) -> Cut:
        """A later cut."""
        return Cut(self.number + 1, cause)


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame and the last cut before it."""

    frame: Frame
    cut: Cut


class Mailbox:
    """One slot between the capture thread and the consumer.

    Args:
        latest_wins: A new frame replaces one that was not fetched (live camera); else the giver waits (recording).
        changed: Notified when a frame is there or was fetched, and on closing; several mailboxes may share one.
    """

    def __init__(self, *, latest_wins: bool, changed: threading.Condition | None = None) -> None:
        self._latest_wins = latest_wins
        self._changed = changed or threading.Condition()
        self._frame: Captured | None = None
        self._closed = False

    def put(self, frame: Captured) -> bool:
        """Hand a frame over.

        Returns:
            False when another frame was replaced by it; a closed mailbox takes none, and none is lost by that.
        """
        with self._changed:
            if not self._latest_wins:  # as long as the consumer thinks: close() ends it
                self._changed.wait_for(lambda: self._frame is None or self._closed)
            if self._closed:
                return True
            kept, self._frame = self._frame is None, frame
            self._changed.notify_all()
            return kept

    def get(self, timeout_seconds: float) -> Captured | None:
        """Fetch the frame; None when none came in time or the mailbox is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed, timeout_seconds)
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return frame

    @property
    def waiting(self) -> Captured | None:
        """The frame that would be fetched now; it stays."""
        with self._changed:
            return self._frame

    def close(self) -> None:
        """No more frames; a waiting giver and a waiting consumer go on at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more frames come; the last one may still be there."""
        with self._changed:
            return self._closed and self._frame is None
