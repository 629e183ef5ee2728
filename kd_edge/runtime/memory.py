"""Memory of a stream: features of past frames and planes of the motion stack, of fixed size at any frame rate."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from kd_edge.sampling import nearest_one
from kd_edge.types import Cause, Float32, Reason

FEATURES_PER_SPACING = 32
"""Features kept per segment spacing; faster cameras are thinned to this."""
PLANES_PER_HISTORY = 16
"""Planes kept per motion history; faster cameras are thinned to this."""
START = Cause(Reason.START, "start")
"""Cause of a window that has never been full."""
GAP = Cause(Reason.GAP, "gap")
"""Cause of a window that is not full because no frame came for too long."""


Row = TypeVar("Row")


class Stack(NamedTuple, Generic[Row]):
    """The planes of one network input.

    Attributes:
        stamp_ns: When the newest frame was captured.
        planes: One per motion offset, newest first; the next frame may overwrite what they hold.
        late_ns: By how much the worst plane exceeds the tolerance around its nominal time; 0 if none does.
    """

    stamp_ns: int
    planes: list[Row]
    late_ns: int


class StampedRing:
    """Slots for the newest rows of an endless sequence, ordered by time stamp; the caller stores the rows.

    Rows are kept at least ``separation_ns`` apart, except the newest one: a row that follows its predecessor sooner
    is replaced by the next. So a fixed capacity spans a fixed time at any frame rate.

    Args:
        span_ns: Time that the rows must span; 0 for the newest one alone.
        separation_ns: Smallest distance of stored rows.

    Attributes:
        capacity: Number of slots; the caller allocates as many rows.
    """

    def __init__(self, span_ns: int, separation_ns: int) -> None:
        self.capacity = span_ns // separation_ns + 3 if span_ns else 1
        self._separation_ns = separation_ns
        self._stamps = array("q")  # searched without NumPy, which costs more than it saves on so few
        self._next = 0  # where the next row goes

    def clear(self) -> None:
        """Forget everything."""
        del self._stamps[:]

    @property
    def stamps_ns(self) -> Sequence[int]:
        """Stamps of the rows, increasing; changed by the next ``append``."""
        return self._stamps

    def append(self, stamp_ns: int) -> int:
        """Add a row; stamps must increase.

        Returns:
            Its slot, for the caller to fill.
        """
        stamps = self._stamps
        if len(stamps) >= 2 and stamps[-1] - stamps[-2] < self._separation_ns:
            stamps.pop()
            self._next -= 1
        elif len(stamps) == self.capacity:
            del stamps[0]
        stamps.append(stamp_ns)
        place = self._next % self.capacity
        self._next = place + 1
        return place

    def places(self, targets_ns: Iterable[int]) -> tuple[list[int], int]:
        """Find the rows nearest to target times, the earlier one on a tie; the ring must not be empty.

        Returns:
            Their slots, and the largest distance from a target in ns.
        """
        stamps, first = self._stamps, self._next - len(self._stamps)
        places, worst_ns = [], 0
        for target_ns in targets_ns:
            index = nearest_one(stamps, target_ns)
            places.append((first + index) % self.capacity)
            worst_ns = max(worst_ns, abs(stamps[index] - target_ns))
        return places, worst_ns


class FeatureRing:
    """The window of one source: its features, gathered by time stamp into the streaming step's ``past``.

    Args:
        segments: Number T of segments in a window.
        spacing_ns: Time between two segments.
        feature_size: Length D of a feature.

    Attributes:
        cause: Why the window is not full, the reason of a ``warming`` prediction: what cleared it, or a gap since it
            was last full. Set by ``clear`` and ``gather`` only.
    """

    def __init__(self, segments: int, spacing_ns: int, feature_size: int) -> None:
        self._segments, self._spacing_ns = segments, spacing_ns
        separation_ns = max(1, spacing_ns // FEATURES_PER_SPACING)
        self._ring = StampedRing(segments * spacing_ns, separation_ns)
        self._features: Float32 = np.zeros((self._ring.capacity, feature_size), dtype=np.float32)
        self.clear(START)

    def clear(self, cause: Cause) -> None:
        """Forget everything and note the cause."""
        self._ring.clear()
        self.cause = cause

    def append(self, stamp_ns: int, feature: Float32) -> None:
        """Store the (D,) feature of the frame captured at ``stamp_ns``, later than all before."""
        self._features[self._ring.append(stamp_ns)] = feature

    def gather(self, now_ns: int, out: Float32) -> int | None:
        """Write the features of the T-1 older segments of the window that ends at ``now_ns``.

        Args:
            now_ns: Stamp of the newest frame, not yet appended.
            out: (T-1, D) float32, oldest first; untouched when the window is not full.

        Returns:
            The largest distance of a feature from its segment's nominal time, in ns; None (warming) if a segment has
            no feature within half a spacing.
        """
        error_ns = 0 if self._segments == 1 else self._collect(now_ns, out)
        if error_ns is not None:
            self.cause = GAP  # only a gap empties a full window without ``clear``
        return error_ns

    def _collect(self, now_ns: int, out: Float32) -> int | None:
        if not self._ring.stamps_ns:
            return None
        oldest_ns = now_ns - (self._segments - 1) * self._spacing_ns
        places, error_ns = self._ring.places(range(oldest_ns, now_ns, self._spacing_ns))
        if error_ns * 2 > self._spacing_ns:
            return None
        self._features.take(places, axis=0, out=out, mode="clip")  # the default mode would buffer the whole result
        return error_ns


class MotionHistory(Generic[Row]):
    """Rows of the newest frames of one source for the motion stack: those at t, t - d1, t - d2 ... as channels.

    With the single offset 0, the stack is the newest frame alone and always complete.

    Args:
        offsets_ms: How far back each row of the stack lies, milliseconds; 0 first.
        make_rows: Allocates rows for that many frames: their planes, or data from which planes are made later.
        longest_gap_ns: A longer gap between frames restarts the history.
    """

    def __init__(self, offsets_ms: tuple[int, ...], make_rows: Callable[[int], list[Row]], longest_gap_ns: int) -> None:
        self._offsets_ns = [offset * 1_000_000 for offset in offsets_ms]
        self._tolerance_ns = min((b - a for a, b in pairwise(self._offsets_ns)), default=0) // 2
        self._gap_ns = max(longest_gap_ns, 2 * self._tolerance_ns)
        span_ns = self._offsets_ns[-1] + self._tolerance_ns
        separation_ns = max(1, span_ns // PLANES_PER_HISTORY)
        self._ring = StampedRing(span_ns, separation_ns)
        self._rows = make_rows(self._ring.capacity)

    def clear(self) -> None:
        """Forget everything."""
        self._ring.clear()

    def append(self, stamp_ns: int) -> Row:
        """Add the row of the frame captured at ``stamp_ns``, for the caller to fill."""
        if self._ring.stamps_ns and stamp_ns - self._ring.stamps_ns[-1] > self._gap_ns:
            self._ring.clear()
        return self._rows[self._ring.append(stamp_ns)]

    def stack(self) -> Stack[Row] | None:
        """The rows of the newest frame's stack; None (warming) while the history is too short."""
        oldest_ns, newest_ns = self._ring.stamps_ns[0], self._ring.stamps_ns[-1]
        if oldest_ns - (newest_ns - self._offsets_ns[-1]) > self._tolerance_ns:
            return None
        places, error_ns = self._ring.places([newest_ns - offset for offset in self._offsets_ns])
        return Stack(newest_ns, [self._rows[place] for place in places], max(0, error_ns - self._tolerance_ns))
