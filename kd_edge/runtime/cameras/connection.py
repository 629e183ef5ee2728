"""What blocks runs in a thread of its own: the newest picture of a library whose waits nothing interrupts."""

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
"""A stream that claims a higher rate does not know its own."""


class Picture(NamedTuple):
    """A picture as the library gives it.

    Attributes:
        content: What its camera makes an image of.
        stamp_ns: When it was captured, as far as known.
        due: ``time.monotonic()`` before which a newer one may yet take its place.
    """

    content: Any
    stamp_ns: int
    due: float


class Arrivals:
    """Tells pictures that were held up on their way from those that come at their pace.

    After a standstill of the network several come at once, and only the last of them is new; a picture that comes too
    early or too late therefore waits for a part of a period whether another one follows.
    """

    COUNT = 16

    def __init__(self, fps: float | None) -> None:
        self._moments: deque[float] = deque(maxlen=self.COUNT)
        self._usual = 1 / (fps or USUAL_FPS)

    def held(self, now: float) -> float:
        """How long the picture that came now should wait, s."""
        self._moments.append(now)
        count = len(self._moments) - 1
        if count == 0:
            return self._most()
        if count == self.COUNT - 1:  # the mean, which a standstill and the bunch behind it do not change
            self._usual = max((now - self._moments[0]) / count, 1 / MOST_FPS)
        gap = now - self._moments[-2]
        return 0.0 if self._usual / 2 <= gap <= 2 * self._usual else self._most()

    def _most(self) -> float:
        return min(self._usual / 2, LONGEST_HELD_SECONDS)


class Connection:
    """One connection: a thread that opens and plays it, and the newest picture it has given.

    Nobody waits for the thread longer than stated; one that hangs is left behind, and ends when it stops hanging.

    Args:
        name: The camera's.
        play: Opens, calls ``connected``, hands over pictures while ``is_wanted``, and closes.
        explained: What an exception of ``play`` means, where it is none of ours.
        ended: What it means when ``play`` returns by itself.
        advice: What to do when nothing comes.

    Attributes:
        is_connected: Whether it is open.
        fps: The rate the stream claims; None where it claims none.
        is_wanted: Whether it should go on.
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
        """It is open; only pictures are missing yet."""
        self.fps = fps
        self.is_connected = True

    def hand_over(self, picture: Picture) -> None:
        """A new picture takes the place of one that was not taken."""
        with self._changed:
            self._picture = picture
            self._changed.notify_all()

    def note_damage(self, damage: BadPictureError) -> None:
        """One picture is lost."""
        with self._changed:
            self._damage = damage
            self._changed.notify_all()

    def take(self, timeout_seconds: float) -> Picture | None:
        """Take the newest picture; None when none came in time.

        Raises:
            BadPictureError: One that is damaged came.
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
        """Whoever waits for a picture should not any longer."""
        with self._changed:
            self._end = self._end or self.fault("it is being closed", "frames", "open it again")
            self._changed.notify_all()

    def close(self, timeout_seconds: float) -> bool:
        """Have it ended; whether it is. Only the first call waits."""
        if self.is_wanted:
            self.is_wanted = False
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def silent(self, seconds: float) -> CameraError:
        """Nothing came for so long."""
        for_so_long = duration(round(seconds * 1e9))
        found = "it sends no picture for" if self.is_connected else "no answer within"
        return self.fault(f"{found} {for_so_long}", "frames", self._advice)

    def fault(self, found: str, expected: str, fix: str) -> CameraError:
        """An error of this camera."""
        return CameraError(f"camera {self._name}: {found}", expected, fix)

    def _run(self) -> None:
        try:
            self._play(self)
            end: KdEdgeError = self.fault(self._ended, "frames", self._advice)
        except KdEdgeError as error:
            end = error
        except BaseException as error:  # whatever the library raises; never left to the thread, which would print it
            try:
                end = self._explained(self, error)
            except Exception:
                end = self.fault(f"it failed ({type(error).__name__})", "frames", self._advice)
        with self._changed:
            self._end = end
            self._changed.notify_all()
