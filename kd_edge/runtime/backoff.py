"""Back-off between attempts to reopen a camera or a sink."""

from __future__ import annotations

from kd_edge.runtime.clock import Clock


class Backoff:
    """Waits between attempts: each twice the previous one, reset only after it has worked for a while.

    Args:
        clock: Says how long it was well.
        first_seconds: The shortest wait.
        longest_seconds: The longest one.
        settled_seconds: What breaks sooner after it came back has not recovered: waits go on doubling.
    """

    def __init__(self, clock: Clock, first_seconds: float, longest_seconds: float, settled_seconds: float) -> None:
        self._clock = clock
        self._first_seconds, self._longest_seconds = first_seconds, longest_seconds
        self._settled_ns = settled_seconds * 1e9
        self._seconds = first_seconds
        self._well_since_ns: int | None = None

    def came_back(self) -> None:
        """Note that it works from now on."""
        self._well_since_ns = self._clock.now_ns()

    def next_seconds(self) -> float:
        """How long to wait before the next attempt."""
        since_ns, self._well_since_ns = self._well_since_ns, None
        if since_ns is not None and self._clock.now_ns() - since_ns >= self._settled_ns:
            self._seconds = self._first_seconds
        seconds, self._seconds = self._seconds, min(2 * self._seconds, self._longest_seconds)
        return seconds
