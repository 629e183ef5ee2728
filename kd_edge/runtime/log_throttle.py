"""Log what goes on happening once in a while, not once a frame."""

from __future__ import annotations

from kd_edge.runtime.clock import Clock

INTERVAL_NS = 10_000_000_000


class LogThrottle:
    """Says whether a line of the log is due: one of each kind in ``INTERVAL_NS``.

    Args:
        clock: Says how long ago a kind was logged.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._logged_ns: dict[str, int] = {}

    def is_due(self, kind: str) -> bool:
        """Whether to log it now; there must be few different kinds."""
        now_ns = self._clock.now_ns()
        logged_ns = self._logged_ns.get(kind)
        if logged_ns is not None and now_ns - logged_ns < INTERVAL_NS:
            return False
        self._logged_ns[kind] = now_ns
        return True
