"""Deliver frames of several cameras with nearly equal stamps at the same time."""

from __future__ import annotations

import threading
import time

ABSENT_SECONDS = 1.0
"""A camera without a frame for longer is not waited for."""
TRANSPORT_SECONDS = 0.03
"""How much later than another one a frame of the same moment may arrive."""


class Pairing:
    """Holds a frame back for a short time until the other cameras' frames with stamps within a slop have arrived.

    Args:
        slop_ns: Largest difference between the stamps of paired frames.
        longest_seconds: Longest time that a frame is held back; None: the slop plus ``TRANSPORT_SECONDS``.

    Attributes:
        paired: Number of groups of frames delivered together.
    """

    def __init__(self, slop_ns: int, longest_seconds: float | None = None) -> None:
        self._slop_ns = slop_ns
        self._longest_seconds = slop_ns / 1e9 + TRANSPORT_SECONDS if longest_seconds is None else longest_seconds
        self._changed = threading.Condition()
        self._seen: dict[str, float] = {}  # time of each camera's last frame
        self._waiting: dict[str, int] = {}  # stamps of frames that are held back
        self._met: set[str] = set()  # cameras whose frame has all its partners
        self.paired = 0

    def join(self, camera: str) -> None:
        """Add a camera."""
        with self._changed:
            self._seen[camera] = -ABSENT_SECONDS

    def seen(self, camera: str) -> None:
        """Record that a camera delivers frames, so that the others wait for it."""
        with self._changed:
            self._seen[camera] = time.monotonic()

    def leave(self, camera: str) -> None:
        """Remove a camera; the others no longer wait for it."""
        with self._changed:
            self._seen.pop(camera, None)
            self._waiting.pop(camera, None)
            self._met.discard(camera)
            self._meet()  # without it the others may be complete
            self._changed.notify_all()

    def has_met(self, camera: str) -> bool:
        """Whether a camera's last frame was delivered together with others."""
        return camera in self._met

    def forget(self, camera: str) -> None:
        """Record that a camera's last delivered frame has been received."""
        with self._changed:
            self._met.discard(camera)

    def meet(self, camera: str, stamp_ns: int) -> None:
        """Wait for the other cameras' frames of the same moment; ``has_met`` is true if they arrived."""
        with self._changed:
            self._seen[camera] = time.monotonic()
            self._waiting[camera] = stamp_ns
            self._met.discard(camera)
            self._meet()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_over(camera, stamp_ns), self._longest_seconds)
            self._waiting.pop(camera, None)

    def _meet(self) -> None:
        """Release the waiting frames if they are complete and within the slop."""
        others = self._expected()
        if len(others) < 2 or not others <= self._waiting.keys():
            return
        stamps = [self._waiting[camera] for camera in others]
        if max(stamps) - min(stamps) <= self._slop_ns:
            self._met |= others
            self.paired += 1
            for camera in others:
                del self._waiting[camera]

    def _is_over(self, camera: str, stamp_ns: int) -> bool:
        """Whether a camera's wait is over."""
        if self._waiting.get(camera) != stamp_ns or len(self._expected()) < 2:
            return True
        return any(other - stamp_ns > self._slop_ns for other in self._waiting.values())

    def _expected(self) -> set[str]:
        now = time.monotonic()
        return {camera for camera, seen in self._seen.items() if now - seen < ABSENT_SECONDS}
