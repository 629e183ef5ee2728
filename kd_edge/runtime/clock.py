"""The clock of a stream: one moment for capture, watchdog and labels, and one way to wait until another."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time; whoever replays or tests a stream may bring one that goes as it likes."""

    def now_ns(self) -> int:
        """This moment, monotonic nanoseconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; not at all for 0."""
        ...


class MonotonicClock:
    """This machine's ``time.monotonic_ns``, which the stamps of frames and labels are moments of."""

    def now_ns(self) -> int:
        """This moment, monotonic nanoseconds."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this machine."""
        time.sleep(seconds)


MONOTONIC = MonotonicClock()
"""The clock unless told otherwise."""
