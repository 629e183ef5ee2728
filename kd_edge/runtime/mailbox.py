"""Frames on their way from a capture thread to the consumer, and cuts between them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from kd_edge.runtime.memory import START
from kd_edge.types import Cause, Frame


@dataclass(frozen=True, slots=True)
class Cut:
    """A discontinuity of a stream, after which a new window begins.

    Attributes:
        number: 0 at the start; increases with each cut.
        cause: What happened.
    """

    number: int = 0
    cause: Cause = START

    def next(self, cause: Cause) -> Cut:
        """The following cut."""
        return Cut(self.number + 1, cause)


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame and the last cut before it."""

    frame: Frame
    cut: Cut


class Mailbox:
    """One slot between the capture thread and the consumer.

    Args:
        latest_wins: A new frame replaces an unfetched one (live camera); otherwise the producer waits (recording).
        changed: Notified when a frame was put or fetched, and on closing; several mailboxes may share one.
    """

    def __init__(self, *, latest_wins: bool, changed: threading.Condition | None = None) -> None:
        self._latest_wins = latest_wins
        self._changed = changed or threading.Condition()
        self._frame: Captured | None = None
        self._closed = False

    def put(self, frame: Captured) -> bool:
        """Hand a frame over.

        Returns:
            False if the frame replaced another one. A closed mailbox accepts no frame; that does not count as a loss.
        """
        with self._changed:
            if not self._latest_wins:  # as long as the consumer takes; close() ends the wait
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
        """The frame that ``get`` would return now, without fetching it."""
        with self._changed:
            return self._frame

    def close(self) -> None:
        """Accept no more frames; wakes a waiting producer and consumer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the mailbox is closed and empty."""
        with self._changed:
            return self._closed and self._frame is None
