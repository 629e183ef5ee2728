"""Time: the clock of a stream, and the one rule that turns a camera's stamps into moments of it.

A stamp decides how fresh a label looks, so no camera is believed: a moment may not lie ahead of now by more than
a stated bound, nor far behind it, nor jump. What breaks the rule is a ``Cause``, never a moment.
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
"""What a camera stamps with: this machine's ``CLOCK_MONOTONIC``, its time of day, a clock of the device's own with any
epoch, or nothing at all: then the moment of reading stands in, and how long a frame lay in buffers is not known."""

MAX_AHEAD_MS = MAX_AHEAD_NS / 1e6
STEP_BACK_NS = 1_000_000_000
"""Stamps that go back by more are of a clock that stepped or wrapped; by less, of frames that overtook each other. A
camera's may go back no further than ahead: frames do not overtake each other in a driver."""
OLDEST_NS = 10_000_000_000
"""A live frame that seems older than this bears the stamp of another clock."""
COARSER = {"microseconds": 1e3, "milliseconds": 1e6, "seconds": 1e9}
"""What a stamp may be in by mistake, and its length in nanoseconds."""
STAMP_LIMIT_NS = 1 << 62
"""Stamps below this leave room to calculate in 64 bits."""


class Clock(Protocol):
    """Monotonic time; whoever replays or tests a stream may bring one that goes as it likes."""

    def now_ns(self) -> int:
        """This moment, monotonic nanoseconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; not at all for 0."""
        ...

    def wall_ns(self) -> int:
        """The time of day, nanoseconds since 1970; may step at any moment."""
        ...

    def suspended_ns(self) -> int:
        """How long this machine has slept since it started, which ``now_ns`` leaves out."""
        ...


class MonotonicClock:
    """This machine's ``time.monotonic_ns``, which the stamps of frames and labels are moments of."""

    def now_ns(self) -> int:
        """This moment, monotonic nanoseconds."""
        return time.monotonic_ns()

    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this machine."""
        time.sleep(seconds)

    def wall_ns(self) -> int:
        """This machine's time of day."""
        return time.time_ns()

    def suspended_ns(self) -> int:
        """What the clock that counts sleep is ahead; 0 where there is none (not Linux)."""
        boot = getattr(time, "CLOCK_BOOTTIME", None)
        if boot is None:
            return 0
        readings = []
        for _ in range(8):  # another thread may run between two readings: that is no sleep
            before_ns, boot_ns, after_ns = time.monotonic_ns(), time.clock_gettime_ns(boot), time.monotonic_ns()
            readings.append((after_ns - before_ns, boot_ns - after_ns))
            if after_ns - before_ns < 1_000_000:
                break
        return min(readings)[1]


MONOTONIC = MonotonicClock()
"""The clock unless told otherwise."""


def stamp_of(value: object, what: str = "a frame's stamp") -> int | Cause:
    """A stamp as whole nanoseconds, or why it is none (None, NaN, infinite, a fraction, beyond 64 bits).

    Args:
        value: What is said to be one.
        what: Names it in the cause.
    """
    if type(value) is int and -STAMP_LIMIT_NS < value < STAMP_LIMIT_NS:  # nearly all are
        return value
    try:
        stamp_ns = operator.index(cast("SupportsIndex", value))
    except TypeError:  # a float of whole nanoseconds will do
        return _float_stamp_of(value, what)
    if isinstance(value, bool):
        return _no_stamp(value, what)
    if not -STAMP_LIMIT_NS < stamp_ns < STAMP_LIMIT_NS:
        return Cause(Reason.CLOCK_INVALID, f"{what} is {stamp_ns.bit_length()} bits long, beyond any clock")
    return stamp_ns


def _float_stamp_of(value: object, what: str) -> int | Cause:
    """``stamp_of`` for values that are not integers; a fraction of a nanosecond is refused, as no clock has it."""
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
    """What is wrong with a moment that lies too far ahead of now; None of any other."""
    ahead_ns = stamp_ns - now_ns
    if ahead_ns <= max_ahead_ns:
        return None
    return Cause(Reason.CLOCK_AHEAD, f"a frame's stamp lies {duration(ahead_ns)} ahead of now")


def behind_of(now_ns: int, stamp_ns: int) -> Cause | None:
    """What is wrong with a moment that lies so far behind now that no live frame is of it; None of any other."""
    if now_ns - stamp_ns <= OLDEST_NS:
        return None
    meant = unit_meant(stamp_ns, now_ns)
    question = f" (is it in {meant}?)" if meant else ""
    return Cause(Reason.CLOCK_BEHIND, f"a frame's stamp lies {duration(now_ns - stamp_ns)} behind now{question}")


def unit_meant(stamp: int, ns: int) -> str:
    """The unit in which a time is written that is so long in nanoseconds; empty where that is none of ``COARSER``."""
    return next((unit for unit, each_ns in COARSER.items() if 0.9 * ns < stamp * each_ns < 1.1 * ns), "")


def duration(ns: int) -> str:
    """A length of time for people, in the largest unit of which there is one: ``350 ms``, ``2.0 hours``."""
    for unit_ns, unit in ((31_557_600e9, "years"), (86_400e9, "days"), (3600e9, "hours"), (60e9, "min"), (1e9, "s")):
        if abs(ns) >= unit_ns:
            return f"{ns / unit_ns:.1f} {unit}"
    return f"{ns / 1e6:.0f} ms"


class StampMapper:
    """Turns the stamps of one live camera into moments of our clock, or says why it cannot.

    A frame whose stamp breaks the rule is lost; ``CLOCK_JUMP`` besides means that moments before and after cannot be
    compared, and that frames after it are welcome again.

    Args:
        kind: What the camera stamps with.
        max_ahead_ns: How far a moment may lie ahead of now.
        clock: Ours.
    """

    def __init__(self, kind: ClockKind, max_ahead_ns: int, clock: Clock) -> None:
        self._kind, self._max_ahead_ns, self._clock = kind, max_ahead_ns, clock
        self._device = DeviceClock(max_ahead_ns)
        self._last_ns: int | None = None
        self._wall_ahead_ns: int | None = None  # how far the time of day was ahead of our clock at the last frame

    def reopened(self) -> None:
        """The camera was reopened: stamps may go back. What is known of a device's clock holds until it jumps."""
        self._last_ns = self._wall_ahead_ns = None

    def restart(self) -> None:
        """Forget everything: the machine slept, and nothing is known of the device's clock meanwhile."""
        self._device.restart()
        self.reopened()

    def moment(self, stamp: object, received_ns: int) -> int | Cause:
        """The moment of capture of a frame, at most ``received_ns``.

        Args:
            stamp: What the camera stamped it with.
            received_ns: Our clock, right after it was read.
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
        """The moment of a stamp of the time of day; where that stepped, a frame under way bears neither time."""
        last_ns, self._wall_ahead_ns = self._wall_ahead_ns, self._clock.wall_ns() - received_ns
        if last_ns is not None and abs(self._wall_ahead_ns - last_ns) > self._max_ahead_ns:
            return Cause(Reason.CLOCK_JUMP, f"the time of day stepped by {duration(self._wall_ahead_ns - last_ns)}")
        return self._judged(stamp_ns, received_ns, self._wall_ahead_ns)

    def _judged(self, stamp_ns: int, received_ns: int, clock_ahead_ns: int = 0) -> int | Cause:
        """The rule for a clock whose now is known: so far ahead of ours."""
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
    """Offset and drift of a clock with an epoch of its own, learned from when its stamps arrive.

    No frame arrives before it was captured, so the least delay of the last seconds is taken for the way from the device
    to us: the lower envelope of ``arrival - stamp``, a line through the least delays of each second (Theil-Sen slope,
    which a few late seconds cannot turn). The line never rises faster above the least delay ever seen than clocks
    drift: frames that are late for good stay late.

    Args:
        max_ahead_ns: A stamp that lies further ahead of the line than this has jumped.
    """

    SECONDS = 16
    """How many seconds' least delays are kept."""
    MAX_DRIFT = 5e-4
    """Two clocks that drift apart faster than this are not clocks: what grows faster is lateness."""

    def __init__(self, max_ahead_ns: int) -> None:
        self._max_ahead_ns = max_ahead_ns
        self.restart()

    def restart(self) -> None:
        """Forget everything: the next stamp begins a new epoch."""
        self._least: deque[tuple[int, int]] = deque(maxlen=self.SECONDS)  # (stamp, delay) of whole seconds
        self._second: tuple[int, int] | None = None  # of the running one
        self._began_ns = 0  # stamp at which it began
        self._origin_ns = self._offset_ns = 0
        self._drift = 0.0
        self._floor: tuple[int, int] | None = (
            None  # (stamp, delay) above which the line rises no faster than clocks drift
        )
        self._fallen_ns = 0  # how much shorter the way turned out to be in the running second
        self._first: tuple[int, int] | None = None  # stamp and arrival
        self._last_ns: int | None = None

    def moment(self, stamp_ns: int, received_ns: int) -> int | Cause:
        """The moment of capture by our clock, at most ``received_ns``; a ``CLOCK_JUMP`` begins a new epoch."""
        delay_ns = received_ns - stamp_ns
        jump = None if self._last_ns is None else self._jump(stamp_ns, delay_ns)
        if jump is not None:
            self.restart()
        self._learn(stamp_ns, delay_ns)
        wrong = jump or self._coarser(stamp_ns, received_ns)
        return wrong or min(stamp_ns + self._expected_ns(stamp_ns), received_ns)

    def _coarser(self, stamp_ns: int, received_ns: int) -> Cause | None:
        """What is wrong with stamps that do not count nanoseconds, as their rate shows after a second."""
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
        """The delay on the line at a stamp."""
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
        """Lay the line under the least delays."""
        points = [*self._least, cast("tuple[int, int]", self._second)]
        slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(points, 2) if t > s]
        drift = statistics.median(slopes) if len(points) > 3 else 0.0
        self._drift = max(-self.MAX_DRIFT, min(self.MAX_DRIFT, drift))
        self._origin_ns = points[-1][0]
        self._offset_ns = min(delay + round(self._drift * (self._origin_ns - stamp)) for stamp, delay in points)
