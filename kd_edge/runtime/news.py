"""A log that says what goes on happening once in a while, not once a frame."""

from __future__ import annotations

from kd_edge.runtime.clock import Clock

INTERVAL_NS = 10_000_000_000


class News:
    """Tells what is worth a line in the log: each thing again only after ``INTERVAL_NS``.

    Args:
        clock: Says how long ago a thing was told.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told_ns: dict[str, int] = {}

    def is_news(self, what: str) -> bool:
        """Whether to tell it now; there must be few different things."""
        now_ns = self._clock.now_ns()
        told_ns = self._told_ns.get(what)
        if told_ns is not None and now_ns - told_ns < INTERVAL_NS:
            return False
        self._told_ns[what] = now_ns
        return True
