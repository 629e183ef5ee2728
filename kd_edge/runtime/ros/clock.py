"""ROS time as the clock of a stream: the simulated time of a bag or a simulator, which may stand still or go back."""

from __future__ import annotations

import threading
import time
from typing import Any

from kd_edge.runtime.clock import duration

BACK_NS = 50_000_000
"""Time that goes back by less is of two messages that overtook each other: it stands still until it has caught up."""
PAUSE_NS = 1_000_000_000
"""What lies between the times before and after a jump: frames of both can be told apart."""
MOST_LAG_NS = 1_000_000_000
"""How far ``/clock``, which comes some 40 times a real second whatever the rate of a replay, lags behind messages."""
STANDSTILL_SECONDS = 0.5
"""Simulators tell the time many times a second: it has stopped when it did not for so long."""
_NAP_SECONDS = 0.01


class RosClock:
    """The ROS time of a node as a ``kd_edge.runtime.clock.Clock``; it never goes back.

    Where ROS time goes back (a bag that is played in a loop), an offset is added from then on: one that leaves
    ``PAUSE_NS`` between before and after. Stamps of frames are moments of this clock once ``offset_ns`` is added.

    Args:
        node: Of rclpy; with ``use_sim_time`` its time is what comes on ``/clock``.
    """

    def __init__(self, node: Any) -> None:
        self._clock = node.get_clock()
        self._lock = threading.Lock()
        self._offset_ns = self._jumps = 0
        self._newest_ns = self._told_ns = self._raw_ns = 0
        self._back_ns = 0
        self._changed = time.monotonic()
        self._read()

    @property
    def is_simulated(self) -> bool:
        """Whether time comes from ``/clock``."""
        return bool(self._clock.ros_time_is_active)

    @property
    def is_ticking(self) -> bool:
        """Whether time goes on: False before the first ``/clock``, and once it has stood still for some seconds."""
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
        """What keeps time from going on, in words; empty where nothing does."""
        if self.is_ticking:
            return ""
        if self._raw_ns == 0:
            return "use_sim_time is set and nothing has come on /clock"
        return f"simulated time stands still at {self._raw_ns / 1e9:.3f} s"

    def now_ns(self) -> int:
        """This moment: ROS time with the offset, nanoseconds."""
        return self._read()

    def see(self, stamp_ns: int) -> None:
        """A message with this stamp is here, so time has come as far, though ``/clock`` may not have said so yet.

        Args:
            stamp_ns: ROS time; one that lies further ahead than ``/clock`` lags is of another clock, or of before a
                jump, and tells nothing.
        """
        self._read()
        with self._lock:
            if self._raw_ns > 0 and stamp_ns - self._raw_ns <= MOST_LAG_NS:
                self._newest_ns = max(self._newest_ns, stamp_ns + self._offset_ns)

    def wall_ns(self) -> int:
        """ROS time, in which header stamps are given, nanoseconds."""
        return self._read()

    def suspended_ns(self) -> int:
        """0: ROS time counts a machine's sleep, or stands still with whoever publishes it."""
        return 0

    def sleep(self, seconds: float) -> None:
        """Wait until so many seconds of ROS time have passed, at most as long by this machine's clock."""
        until, end_ns = time.monotonic() + seconds, self._read() + round(seconds * 1e9)
        while (left := until - time.monotonic()) > 0 and self._read() < end_ns:
            time.sleep(min(left, _NAP_SECONDS))

    def close(self) -> None:
        """Nothing is held; a second call does nothing."""

    def describe_jump(self) -> str:
        """The last jump, for people."""
        return f"ROS time went back by {duration(self._back_ns)}"

    def _read(self) -> int:
        with self._lock:
            raw_ns: int = self._clock.now().nanoseconds
            if raw_ns != self._raw_ns:
                self._raw_ns, self._changed = raw_ns, time.monotonic()
            now_ns = raw_ns + self._offset_ns
            if self._told_ns - now_ns > BACK_NS:
                self._back_ns = self._told_ns - now_ns
                self._jumps += 1
                self._offset_ns += self._newest_ns - now_ns + PAUSE_NS
                now_ns = self._told_ns = raw_ns + self._offset_ns
            self._told_ns = max(self._told_ns, now_ns)
            self._newest_ns = max(self._newest_ns, now_ns)
            return self._newest_ns
