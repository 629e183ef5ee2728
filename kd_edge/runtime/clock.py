"""Time: the clock of a stream, and the one rule that maps a camera's stamps to it.

Stamps decide how fresh a label looks, so none is trusted: a time of capture may not lie ahead of now by more than a
stated bound, nor far behind it, nor jump. A stamp that violates the rule becomes a ``Cause``, never a time.
"""

from __future__ import annotations

import math
import operator
import statistics
import time
from collections import deque
from itertools import combinations
from typing import Literal, Protocol, SupportsFloat, SupportsIndex, cast

import numpy as np

from kd_edge.types import MAX_AHEAD_NS, Cause, Reason

ClockKind = Literal["monotonic", "wall", "device", "arrival"]
"""Clock of a camera's stamps: this machine's ``CLOCK_MONOTONIC``, its time of day, the device's own clock with any
epoch, or none: then the time of reading is used, and how long a frame was buffered is unknown."""

MAX_AHEAD_MS = MAX_AHEAD_NS / 1e6
STEP_BACK_NS = 1_000_000_000
"""Stamps of pushed frames that go back by more come from a clock that stepped or wrapped; by less, from frames out of
order. A camera's stamps may go back no further than ahead: drivers deliver frames in order."""
OLDEST_NS = 10_000_000_000
"""A live frame that seems older than this has the stamp of another clock."""
COARSER = {"microseconds": 1e3, "milliseconds": 1e6, "seconds": 1e9}
"""Units in which a stamp may be given by mistake, in nanoseconds."""
STAMP_LIMIT_NS = 1 << 62
"""Stamps below this leave room to calculate in 64 bits."""


class Clock(Protocol):
    """Monotonic time; replays and tests may provide their own."""

    def now_ns(self) -> int:
        """Current time, monotonic nanoseconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; returns at once for 0."""
        ...

    def wall_ns(self) -> int:
        """The time of day, nanoseconds since 1970; may step at any moment."""
        ...

    def suspended_ns(self) -> int:
        """Total time this machine was suspended since it started, which ``now_ns`` does not count."""
        ...


class MonotonicClock:
    """This machine's ``time.monotonic_ns``, the clock of all frame and label stamps."""

    def now_ns(self) -> int:
        """Current time, monotonic nanoseconds."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this machine."""
        time.sleep(seconds)

    def wall_ns(self) -> int:
        """This machine's time of day."""
        return time.time_ns()

    def suspended_ns(self) -> int:
        """By how much ``CLOCK_BOOTTIME`` is ahead; 0 where it does not exist (not Linux)."""
        boot = getattr(time, "CLOCK_BOOTTIME", None)
        if boot is None:
            return 0
        readings = []
        for _ in range(8):  # another thread may run between two readings; that is not a suspend
            before_ns, boot_ns, after_ns = time.monotonic_ns(), time.clock_gettime_ns(boot), time.monotonic_ns()
            readings.append((after_ns - before_ns, boot_ns - after_ns))
            if after_ns - before_ns < 1_000_000:
                break
        return min(readings)[1]


MONOTONIC = MonotonicClock()
"""The default clock."""


def stamp_of(value: object, what: str = "a frame's stamp") -> int | Cause:
    """A stamp as whole nanoseconds, or why it is invalid (None, NaN, infinite, a fraction, beyond 64 bits).

    Args:
        value: The value to convert.
        what: What it is called in the cause.
    """
    if type(value) is int and -STAMP_LIMIT_NS < value < STAMP_LIMIT_NS:  # the common case
        return value
    try:
        stamp_ns = operator.index(cast("SupportsIndex", value))
    except TypeError:  # a float of whole nanoseconds is accepted
        return _float_stamp_of(value, what)
    if isinstance(value, bool):
        return _no_stamp(value, what)
    if not -STAMP_LIMIT_NS < stamp_ns < STAMP_LIMIT_NS:
        return Cause(Reason.CLOCK_INVALID, f"{what} is {stamp_ns.bit_length()} bits long, beyond any clock")
    return stamp_ns


def _float_stamp_of(value: object, what: str) -> int | Cause:
    """``stamp_of`` for values that are not integers; fractions of a nanosecond are refused, as no clock counts them."""
    if isinstance(value, (str, bytes, np.bool_)):
        return _no_stamp(value, what)
    try:
        number = float(cast("SupportsFloat", value))
    except (TypeError, ValueError, OverflowError):
        return _no_stamp(value, what)
    if math.isfinite(number) and not number.is_integer():
        found = f"{what} is {number!r}, a fraction of a nanosecond"
        return Cause(Reason.CLOCK_INVALID, f"{found} (seconds? round(1e9 * stamp) is nanoseconds)")
    return stamp_of(int(number), what) if math.isfinite(number) else _no_stamp(value, what)


def _no_stamp(value: object, what: str) -> Cause:
    return Cause(Reason.CLOCK_INVALID, f"{what} is {value!r:.60}, not nanoseconds")


def ahead_of(now_ns: int, stamp_ns: int, max_ahead_ns: int) -> Cause | None:
    """The cause if a stamp lies too far ahead of now; otherwise None."""
    ahead_ns = stamp_ns - now_ns
    if ahead_ns <= max_ahead_ns:
        return None
    return Cause(Reason.CLOCK_AHEAD, f"a frame's stamp lies {duration(ahead_ns)} ahead of now")


def behind_of(now_ns: int, stamp_ns: int) -> Cause | None:
    """The cause if a stamp lies too far behind now for a live frame; otherwise None."""
    if now_ns - stamp_ns <= OLDEST_NS:
        return None
    meant = unit_meant(stamp_ns, now_ns)
    question = f" (is it in {meant}?)" if meant else ""
    return Cause(Reason.CLOCK_BEHIND, f"a frame's stamp lies {duration(now_ns - stamp_ns)} behind now{question}")


def unit_meant(stamp: int, ns: int) -> str:
    """The unit of ``COARSER`` in which ``stamp`` would equal ``ns`` nanoseconds; empty if there is none."""
    return next((unit for unit, each_ns in COARSER.items() if 0.9 * ns < stamp * each_ns < 1.1 * ns), "")


def duration(ns: int) -> str:
    """A duration for people, in the largest unit that fits: ``350 ms``, ``2.0 hours``."""
    for unit_ns, unit in ((31_557_600e9, "years"), (86_400e9, "days"), (3600e9, "hours"), (60e9, "min"), (1e9, "s")):
        if abs(ns) >= unit_ns:
            return f"{ns / unit_ns:.1f} {unit}"
    return f"{ns / 1e6:.0f} ms"


class StampMapper:
    """Maps the stamps of one live camera to the stream's clock, or gives the cause why it cannot.

    A frame whose stamp violates the rule is lost. ``CLOCK_JUMP`` also means that times before and after cannot be
    compared; frames after it are accepted again.

    Args:
        kind: Clock of the camera's stamps.
        max_ahead_ns: How far a stamp may lie ahead of now.
        clock: The stream's clock.
    """

    def __init__(self, kind: ClockKind, max_ahead_ns: int, clock: Clock) -> None:
        self._kind, self._max_ahead_ns, self._clock = kind, max_ahead_ns, clock
        self._device = DeviceClock(max_ahead_ns)
        self._last_ns: int | None = None
        self._wall_ahead_ns: int | None = None  # time of day minus stream clock, at the last frame

    def reopened(self) -> None:
        """Note that the camera was reopened: stamps may go back. A device clock's offset is kept until it jumps."""
        self._last_ns = self._wall_ahead_ns = None

    def restart(self) -> None:
        """Forget everything, after a suspend, during which the device's clock may have done anything."""
        self._device.restart()
        self.reopened()

    def moment(self, stamp: object, received_ns: int) -> int | Cause:
        """Time of capture of a frame by the stream's clock, at most ``received_ns``.

        Args:
            stamp: The camera's stamp.
            received_ns: The stream's clock right after the frame was read.
        """
        if self._kind == "arrival":
            return received_ns
        stamp_ns = stamp_of(stamp)
        if isinstance(stamp_ns, Cause):
            return stamp_ns
        if self._kind == "device":
            return self._device.moment(stamp_ns, received_ns)
        if self._kind == "wall":
            return self._wall_moment(stamp_ns, received_ns)
        return self._judged(stamp_ns, received_ns)

    def _wall_moment(self, stamp_ns: int, received_ns: int) -> int | Cause:
        """Map a time-of-day stamp; when the clock steps, a frame in flight may carry either time."""
        last_ns, self._wall_ahead_ns = self._wall_ahead_ns, self._clock.wall_ns() - received_ns
        if last_ns is not None and abs(self._wall_ahead_ns - last_ns) > self._max_ahead_ns:
            return Cause(Reason.CLOCK_JUMP, f"the time of day stepped by {duration(self._wall_ahead_ns - last_ns)}")
        return self._judged(stamp_ns, received_ns, self._wall_ahead_ns)

    def _judged(self, stamp_ns: int, received_ns: int, clock_ahead_ns: int = 0) -> int | Cause:
        """Apply the rule to a clock that is ``clock_ahead_ns`` ahead of the stream's."""
        its_now_ns, moment_ns = received_ns + clock_ahead_ns, stamp_ns - clock_ahead_ns
        if wrong := ahead_of(its_now_ns, stamp_ns, self._max_ahead_ns) or behind_of(its_now_ns, stamp_ns):
            return wrong if unit_meant(stamp_ns, its_now_ns) else self._with_advice(wrong)
        last_ns, self._last_ns = self._last_ns, moment_ns
        if last_ns is not None and last_ns - moment_ns > min(self._max_ahead_ns, STEP_BACK_NS):
            return Cause(Reason.CLOCK_JUMP, f"stamps went back by {duration(last_ns - moment_ns)}")
        return min(moment_ns, received_ns)

    def _with_advice(self, cause: Cause) -> Cause:
        others = "'device' (any clock that counts nanoseconds) or 'arrival' (no usable stamps)"
        return cause._replace(detail=f"{cause.detail}: not the clock '{self._kind}'; set clock = {others}")


class DeviceClock:
    """Offset and drift of a device clock with its own epoch, estimated from arrival times.

    No frame arrives before it was captured, so the smallest delays of the last seconds are taken as transport time: the
    lower envelope of ``arrival - stamp`` is a line through the smallest delay of each second (Theil-Sen slope, robust
    to a few late seconds). The line may rise above the smallest delay ever seen no faster than clocks drift, so that
    frames that become permanently late are still seen as late.

    Args:
        max_ahead_ns: A stamp further ahead of the line than this means that the clock jumped.
    """

    SECONDS = 16
    """Number of seconds whose smallest delay is kept."""
    MAX_DRIFT = 5e-4
    """Largest plausible drift of two clocks: a delay that grows faster is lateness."""

    def __init__(self, max_ahead_ns: int) -> None:
        self._max_ahead_ns = max_ahead_ns
        self.restart()

    def restart(self) -> None:
        """Forget everything: the next stamp starts a new epoch."""
        self._least: deque[tuple[int, int]] = deque(maxlen=self.SECONDS)  # (stamp, delay) of whole seconds
        self._second: tuple[int, int] | None = None  # of the current second
        self._began_ns = 0  # stamp at which the current second began
        self._origin_ns = self._offset_ns = 0
        self._drift = 0.0
        self._floor: tuple[int, int] | None = (
            None  # (stamp, delay) above which the line rises no faster than clocks drift
        )
        self._fallen_ns = 0  # by how much the line was lowered in the current second
        self._first: tuple[int, int] | None = None  # stamp and arrival
        self._last_ns: int | None = None

    def moment(self, stamp_ns: int, received_ns: int) -> int | Cause:
        """Time of capture by the stream's clock, at most ``received_ns``; a ``CLOCK_JUMP`` starts a new epoch."""
        delay_ns = received_ns - stamp_ns
        jump = None if self._last_ns is None else self._jump(stamp_ns, delay_ns)
        if jump is not None:
            self.restart()
        self._learn(stamp_ns, delay_ns)
        wrong = jump or self._coarser(stamp_ns, received_ns)
        return wrong or min(stamp_ns + self._expected_ns(stamp_ns), received_ns)

    def _coarser(self, stamp_ns: int, received_ns: int) -> Cause | None:
        """The cause if stamps do not count nanoseconds, which their rate shows after a second."""
        self._first = self._first or (stamp_ns, received_ns)
        passed_ns = received_ns - self._first[1]
        unit = unit_meant(stamp_ns - self._first[0], passed_ns) if passed_ns >= 1_000_000_000 else ""
        found = f"a frame's stamps run as if in {unit}: nanoseconds are {COARSER[unit]:,.0f} times that" if unit else ""
        return Cause(Reason.CLOCK_INVALID, found) if unit else None

    def _jump(self, stamp_ns: int, delay_ns: int) -> Cause | None:
        ahead_ns = self._expected_ns(stamp_ns) - delay_ns
        if ahead_ns > self._max_ahead_ns:
            return Cause(Reason.CLOCK_JUMP, f"the device's clock jumped ahead by {duration(ahead_ns)}")
        back_ns = cast("int", self._last_ns) - stamp_ns
        if back_ns > self._max_ahead_ns:
            return Cause(Reason.CLOCK_JUMP, f"the device's clock went back by {duration(back_ns)}")
        if ahead_ns > 0 and self._fallen_ns + ahead_ns > self._max_ahead_ns:  # learned from a burst of old frames
            return Cause(Reason.CLOCK_JUMP, "frames came late while the device's clock was learned")
        return None

    def _expected_ns(self, stamp_ns: int) -> int:
        """Delay of the line at a stamp."""
        line_ns = self._offset_ns + round(self._drift * (stamp_ns - self._origin_ns))
        return line_ns if self._floor is None else min(line_ns, self._ceiling_ns(self._floor, stamp_ns))

    def _ceiling_ns(self, floor: tuple[int, int], stamp_ns: int) -> int:
        return floor[1] + round(self.MAX_DRIFT * (stamp_ns - floor[0]))

    def _learn(self, stamp_ns: int, delay_ns: int) -> None:
        self._last_ns = stamp_ns
        if self._second is None or stamp_ns - self._began_ns >= 1_000_000_000:
            if self._second is not None:
                self._least.append(self._second)
            self._began_ns, self._second = stamp_ns, (stamp_ns, delay_ns)
            self._fallen_ns = 0
            self._fit()
        elif delay_ns < self._second[1]:
            self._second = stamp_ns, delay_ns
        fall_ns = self._expected_ns(stamp_ns) - delay_ns
        if fall_ns > 0:
            self._fallen_ns += fall_ns
            self._origin_ns, self._offset_ns = stamp_ns, delay_ns
        if self._floor is None or delay_ns <= self._ceiling_ns(self._floor, stamp_ns):
            self._floor = stamp_ns, delay_ns

    def _fit(self) -> None:
        """Fit the line below the smallest delays."""
        points = [*self._least, cast("tuple[int, int]", self._second)]
        slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s]
        drift = statistics.median(slopes) if len(points) > 3 else 0.0
        self._drift = max(-self.MAX_DRIFT, min(self.MAX_DRIFT, drift))
        self._origin_ns = points[-1][0]
        self._offset_ns = min(delay + round(self._drift * (self._origin_ns - stamp)) for stamp, delay in points)
