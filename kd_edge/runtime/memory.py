"""What a stream remembers: features of past frames and planes of the motion stack, in fixed memory at any rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from kd_edge.sampling import nearest_one
from kd_edge.types import Cause, Float32, Reason

FEATURES_PER_SPACING = 32
"""Features kept per segment spacing; faster cameras are thinned to this."""
PLANES_PER_HISTORY = 16
"""Planes kept per motion history; faster cameras are thinned to this."""
START = Cause(Reason.START, "start")
"""Of a window that has never been full."""
GAP = Cause(Reason.GAP, "gap")
"""Of a window that is not full because no frame came for too long."""


Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Stack(Generic[Row]):
    """The planes of one network input.

    Attributes:
        stamp_ns: When the newest frame was captured.
        planes: One per motion offset, newest first; the next frame may overwrite what they hold.
        late_ns: By how far the furthest plane lies outside the tolerance about its moment; 0 when none does.
    """

    stamp_ns: int
    planes: list[Row]
    late_ns: int


def rows_of(shape: tuple[int, ...]) -> Callable[[int], list[Float32]]:
    """What makes N float32 rows of one shape, zeros, for a ring."""
    return lambda count: list(np.zeros((count, *shape), dtype=np.float32))


class StampedRing(Generic[Row]):
    """The newest rows of an endless sequence with their time stamps, oldest first, in memory allocated once.

    Rows are kept at least ``separation_ns`` apart (the newest one excepted): one that follows its predecessor sooner
    gives its place to the next. So a fixed capacity spans a fixed time, whatever the frame rate.

    Args:
        span_ns: How far back rows must reach.
        separation_ns: Smallest distance of kept rows.
        make_rows: Makes as many rows as are asked for; they are written to again and again.
    """

    def __init__(self, span_ns: int, separation_ns: int, make_rows: Callable[[int], list[Row]]) -> None:
        self.capacity = span_ns // separation_ns + 3
        self._separation_ns = separation_ns
        self._rows = make_rows(self.capacity)
        self._stamps: list[int] = []  # plain integers: NumPy costs more than it saves on so few
        self._next = 0  # where the next row goes

    def clear(self) -> None:
        """Forget everything."""
        self._stamps.clear()

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def stamps_ns(self) -> Sequence[int]:
        """Increasing; the next ``append`` changes it."""
        return self._stamps

    def append(self, stamp_ns: int) -> Row:
        """Add a row; stamps must increase.

        Returns:
            The row, for the caller to fill.
        """
        stamps = self._stamps
        if len(stamps) >= 2 and stamps[-1] - stamps[-2] < self._separation_ns:
            stamps.pop()
            self._next -= 1
        elif len(stamps) == self.capacity:
            del stamps[0]
        stamps.append(stamp_ns)
        row = self._rows[self._next]
        self._next = (self._next + 1) % self.capacity
        return row

    def row(self, index: int) -> Row:
        """The row that belongs to ``stamps_ns[index]``."""
        return self._rows[(self._next - len(self._stamps) + index) % self.capacity]


class FeatureRing:
    """The window of one source: its features, gathered by time stamp into the streaming step's ``past``.

    Args:
        segments: Number T of segments in a window.
        spacing_ns: Time between two segments.
        feature_size: Length D of a feature.

    Attributes:
        cause: Why the window is not full, for the reason of a ``warming`` prediction: what emptied it, or a gap since
            it was full last. ``clear`` and ``gather`` alone decide it.
    """

    def __init__(self, segments: int, spacing_ns: int, feature_size: int) -> None:
        self._segments, self._spacing_ns = segments, spacing_ns
        separation_ns = max(1, spacing_ns // FEATURES_PER_SPACING)
        self._ring = StampedRing(segments * spacing_ns, separation_ns, rows_of((feature_size,)))
        self.clear(START)

    def clear(self, cause: Cause) -> None:
        """Forget everything, and remember why."""
        self._ring.clear()
        self.cause = cause

    def append(self, stamp_ns: int, feature: Float32) -> None:
        """Remember the (D,) feature of the frame captured at ``stamp_ns``, later than all before."""
        self._ring.append(stamp_ns)[:] = feature

    def gather(self, now_ns: int, out: Float32) -> int | None:
        """Write the features of the T-1 older segments of the window that ends at ``now_ns``.

        Args:
            now_ns: Stamp of the newest frame, not yet appended.
            out: (T-1, D) float32, oldest first; untouched when the window is not full.

        Returns:
            The largest distance of a feature from its segment's moment, in ns; None (warming) when a segment has no
            feature within half a spacing.
        """
        error_ns = 0 if self._segments == 1 else self._collect(now_ns, out)
        if error_ns is not None:
            self.cause = GAP  # nothing else empties a full window without ``clear``
        return error_ns

    def _collect(self, now_ns: int, out: Float32) -> int | None:
        stamps, spacing_ns = self._ring.stamps_ns, self._spacing_ns
        if not stamps:
            return None
        moments = range(now_ns - (self._segments - 1) * spacing_ns, now_ns, spacing_ns)
        chosen = [nearest_one(stamps, moment) for moment in moments]
        error_ns = max(abs(stamps[i] - moment) for i, moment in zip(chosen, moments, strict=True))
        if error_ns * 2 > spacing_ns:
            return None
        for target, index in zip(out, chosen, strict=True):
            target[:] = self._ring.row(index)
        return error_ns


class MotionHistory(Generic[Row]):
    """Rows of the newest frames of one source, for the motion stack: those at t, t - d1, t - d2 ... as channels.

    A stack of the newest frame alone, with the one offset 0, is never too short.

    Args:
        offsets_ms: How far back each row of the stack lies, milliseconds; 0 first.
        make_rows: Makes the rows of that many frames: their planes, or what planes are made of later.
        longest_gap_ns: Frames further apart start the history anew.
    """

    def __init__(
        self, offsets_ms: tuple[int, ...], make_rows: Callable[[int], list[Row]], longest_gap_ns: int
    ) -> None:
        self._offsets_ns = [offset * 1_000_000 for offset in offsets_ms]
        self._tolerance_ns = min((b - a for a, b in pairwise(self._offsets_ns)), default=0) // 2
        self._gap_ns = max(longest_gap_ns, 2 * self._tolerance_ns)
        span_ns = self._offsets_ns[-1] + self._tolerance_ns
        separation_ns = max(1, span_ns // PLANES_PER_HISTORY)
        self._ring = StampedRing(span_ns, separation_ns, make_rows)

    def clear(self) -> None:
        """Forget everything."""
        self._ring.clear()

    def append(self, stamp_ns: int) -> Row:
        """Make room for the row of the frame captured at ``stamp_ns``; the caller fills it."""
        if len(self._ring) and stamp_ns - self._ring.stamps_ns[-1] > self._gap_ns:
            self._ring.clear()
        return self._ring.append(stamp_ns)

    def stack(self) -> Stack[Row] | None:
        """The rows of the newest frame's stack; None (warming) while the history does not reach back far enough."""
        stamps = self._ring.stamps_ns
        newest_ns = stamps[-1]
        if len(self._offsets_ns) == 1:  # the newest frame alone: nothing to search for
            return Stack(newest_ns, [self._ring.row(len(stamps) - 1)], 0)
        moments = [newest_ns - offset for offset in self._offsets_ns]
        if stamps[0] - moments[-1] > self._tolerance_ns:
            return None
        chosen = [nearest_one(stamps, moment) for moment in moments]
        error_ns = max(abs(stamps[i] - moment) for i, moment in zip(chosen, moments, strict=True))
        return Stack(newest_ns, [self._ring.row(i) for i in chosen], max(0, error_ns - self._tolerance_ns))
