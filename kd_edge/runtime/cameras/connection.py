"""Run a library whose waits cannot be interrupted in its own thread, and keep its newest picture."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from kd_edge.errors import BadPictureError, CameraError, KdEdgeError
from kd_edge.runtime.clock import duration

USUAL_FPS = 30.0
LONGEST_HELD_SECONDS = 0.1
MOST_FPS = 240.0
"""A higher claimed rate of a stream is considered wrong."""


class Picture(NamedTuple):
    """A picture as the library delivers it.

    Attributes:
        content: Data that the camera converts to an image.
        stamp_ns: Capture time, as far as known.
        due: ``time.monotonic()`` before which a newer picture may still replace it.
    """

    content: Any
    stamp_ns: int
    due: float


class Arrivals:
    """Distinguishes pictures that were delayed on the way from those that arrive on schedule.

    After the network stalls, several pictures arrive at once and only the last one is current. A picture that arrives
    too early or too late is therefore held for part of a period, in case another one follows.
    """

    COUNT = 16

    def __init__(self, fps: float | None) -> None:
        self._moments: deque[float] = deque(maxlen=self.COUNT)
        self._usual = 1 / (fps or USUAL_FPS)

    def held(self, now: float) -> float:
        """Return how long the picture that arrived now should be held, s."""
        self._moments.append(now)
        count = len(self._moments) - 1
        if count == 0:
            return self._most()
        if count == self.COUNT - 1:  # the mean: a stall and the burst after it do not change it
            self._usual = max((now - self._moments[0]) / count, 1 / MOST_FPS)
        gap = now - self._moments[-2]
        return 0.0 if self._usual / 2 <= gap <= 2 * self._usual else self._most()

    def _most(self) -> float:
        return min(self._usual / 2, LONGEST_HELD_SECONDS)


class Connection:
    """One connection: a thread that opens and plays a stream, and its newest picture.

    No caller waits for the thread longer than stated; a hanging thread is abandoned, and ends when it stops hanging.

    Args:
        name: Name of the camera.
        play: Opens the stream, calls ``connected``, hands over pictures while ``is_wanted``, and closes it.
        explained: Translates an exception of ``play`` that is not a ``KdEdgeError``.
        ended: What it means if ``play`` returns by itself.
        advice: What to do when no picture arrives.

    Attributes:
        is_connected: Whether the stream is open.
        fps: The rate the stream claims; None if it claims none.
        is_wanted: Whether the thread should continue.
    """

    def __init__(
        self,
        name: str,
        play: Callable[[Connection], None],
        explained: Callable[[Connection, BaseException], KdEdgeError],
        *,
        ended: str,
        advice: str,
    ) -> None:
        self.is_connected, self.is_wanted = False, True
        self.fps: float | None = None
        self._name, self._play, self._explained, self._ended = name, play, explained, ended
        self._advice = advice
        self._changed = threading.Condition()
        self._picture: Picture | None = None
        self._damage: BadPictureError | None = None
        self._end: KdEdgeError | None = None
        self._thread = threading.Thread(target=self._run, name=f"kd-edge connection {name}", daemon=True)
        self._thread.start()

    def connected(self, fps: float | None) -> None:
        """Mark the stream as open; pictures are still to come."""
        self.fps = fps
        self.is_connected = True

    def hand_over(self, picture: Picture) -> None:
        """Provide a new picture, replacing one that was not taken."""
        with self._changed:
            self._picture = picture
            self._changed.notify_all()

    def note_damage(self, damage: BadPictureError) -> None:
        """Record that a picture was damaged."""
        with self._changed:
            self._damage = damage
            self._changed.notify_all()

    def take(self, timeout_seconds: float) -> Picture | None:
        """Take the newest picture; None if none arrived in time.

        Raises:
            BadPictureError: A damaged picture arrived.
            CameraError: The connection has ended.
        """
        end = time.monotonic() + timeout_seconds
        with self._changed:
            while True:
                now, picture = time.monotonic(), self._picture
                if picture is not None and (now >= picture.due or self._end is not None):
                    self._picture = None
                    return picture
                if self._damage is not None:
                    damage, self._damage = self._damage, None
                    raise damage
                if self._end is not None:
                    raise self._end
                if now >= end:
                    return None
                self._changed.wait((min(end, picture.due) if picture is not None else end) - now)

    def interrupt(self) -> None:
        """End a wait for a picture."""
        with self._changed:
            self._end = self._end or self.fault("it is being closed", "frames", "open it again")
            self._changed.notify_all()

    def close(self, timeout_seconds: float) -> bool:
        """Ask the thread to end and return whether it has; only the first call waits."""
        if self.is_wanted:
            self.is_wanted = False
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def silent(self, seconds: float) -> CameraError:
        """Return the error for a stream that was silent for ``seconds``."""
        elapsed = duration(round(seconds * 1e9))
        found = "it sends no picture for" if self.is_connected else "no answer within"
        return self.fault(f"{found} {elapsed}", "frames", self._advice)

    def fault(self, found: str, expected: str, fix: str) -> CameraError:
        """Return an error of this camera."""
        return CameraError(f"camera {self._name}: {found}", expected, fix)

    def _run(self) -> None:
        try:
            self._play(self)
            end: KdEdgeError = self.fault(self._ended, "frames", self._advice)
        except KdEdgeError as error:
            end = error
        except BaseException as error:  # the library may raise anything; the thread would print it
            try:
                end = self._explained(self, error)
            except Exception:
                end = self.fault(f"it failed ({type(error).__name__})", "frames", self._advice)
        with self._changed:
            self._end = end
            self._changed.notify_all()
