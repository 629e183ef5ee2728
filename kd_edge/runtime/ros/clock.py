"""ROS time as the clock of a stream: the simulated time of a bag or a simulator, which may pause or go back."""

from __future__ import annotations

import threading
import time
from typing import Any

from kd_edge.runtime.clock import duration

BACK_NS = 50_000_000
"""A smaller step back means that two messages overtook each other: the clock pauses until time has caught up."""
PAUSE_NS = 1_000_000_000
"""Gap inserted between the times before and after a jump, so that frames of both can be distinguished."""
MOST_LAG_NS = 1_000_000_000
"""Longest lag of ``/clock``, published about 40 times per real second at any replay rate, behind the messages."""
STANDSTILL_SECONDS = 0.5
"""Simulators publish the time many times a second: without an update for this long it is paused."""
_NAP_SECONDS = 0.01


class RosClock:
    """The ROS time of a node as a ``kd_edge.runtime.clock.Clock``; it never goes back.

    When ROS time goes back (a bag played in a loop), an offset is added from then on that leaves ``PAUSE_NS`` between
    the times before and after. Adding ``offset_ns`` to a frame's stamp gives its time by this clock.

    Args:
        node: An rclpy node; with ``use_sim_time`` its time comes from ``/clock``.
    """

    def __init__(self, node: Any) -> None:
        self._clock = node.get_clock()
        self._lock = threading.Lock()
        self._offset_ns = self._jumps = 0
        self._newest_ns = self._latest_ns = self._raw_ns = 0
        self._back_ns = 0
        self._changed = time.monotonic()
        self._read()

    @property
    def is_simulated(self) -> bool:
        """Whether time comes from ``/clock``."""
        return bool(self._clock.ros_time_is_active)

    @property
    def is_ticking(self) -> bool:
        """Whether time advances: False before the first ``/clock``, and after ``STANDSTILL_SECONDS`` without change."""
        self._read()
        with self._lock:
            return self._raw_ns > 0 and time.monotonic() - self._changed < STANDSTILL_SECONDS

    @property
    def jumps(self) -> int:
        """How often time went back."""
        self._read()
        return self._jumps

    @property
    def offset_ns(self) -> int:
        """How far this clock is ahead of ROS time."""
        self._read()
        return self._offset_ns

    @property
    def trouble(self) -> str:
        """Why time does not advance, as text; empty if it does."""
        if self.is_ticking:
            return ""
        if self._raw_ns == 0:
            return "use_sim_time is set and nothing has come on /clock"
        return f"simulated time stands still at {self._raw_ns / 1e9:.3f} s"

    def now_ns(self) -> int:
        """Current ROS time with the offset, nanoseconds."""
        return self._read()

    def see(self, stamp_ns: int) -> None:
        """Advance to the stamp of a received message, which ``/clock`` may not have reached yet.

        Args:
            stamp_ns: ROS time; a stamp further ahead than ``MOST_LAG_NS`` is from another clock or from before a jump,
                and is ignored.
        """
        self._read()
        with self._lock:
            if self._raw_ns > 0 and stamp_ns - self._raw_ns <= MOST_LAG_NS:
                self._newest_ns = max(self._newest_ns, stamp_ns + self._offset_ns)

    def wall_ns(self) -> int:
        """Same as ``now_ns``: header stamps are in ROS time, too."""
        return self._read()

    def suspended_ns(self) -> int:
        """0: ROS time includes a machine's sleep, or pauses together with its publisher."""
        return 0

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of ROS time, but no longer than that by this machine's clock."""
        until, end_ns = time.monotonic() + seconds, self._read() + round(seconds * 1e9)
        while (left := until - time.monotonic()) > 0 and self._read() < end_ns:
            time.sleep(min(left, _NAP_SECONDS))

    def close(self) -> None:
        """Nothing to release."""

    def describe_jump(self) -> str:
        """Describe the last jump."""
        return f"ROS time went back by {duration(self._back_ns)}"

    def _read(self) -> int:
        with self._lock:
            raw_ns: int = self._clock.now().nanoseconds
            if raw_ns != self._raw_ns:
                self._raw_ns, self._changed = raw_ns, time.monotonic()
            now_ns = raw_ns + self._offset_ns
            if self._latest_ns - now_ns > BACK_NS:
                self._back_ns = self._latest_ns - now_ns
                self._jumps += 1
                self._offset_ns += self._newest_ns - now_ns + PAUSE_NS
                now_ns = self._latest_ns = raw_ns + self._offset_ns
            self._latest_ns = max(self._latest_ns, now_ns)
            self._newest_ns = max(self._newest_ns, now_ns)
            return self._newest_ns
