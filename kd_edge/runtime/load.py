"""Whether this machine keeps up with its camera: what a frame takes, and how often one comes."""

from __future__ import annotations

from collections import deque
from statistics import median

from kd_edge.runtime.rate import PERIODS, NeededRate
from kd_edge.types import Cause, Reason


class Load:
    """Medians over the last frames of a live stream."""

    def __init__(self) -> None:
        self._took_ns: deque[int] = deque(maxlen=PERIODS)
        self._every_ns: deque[float] = deque(maxlen=PERIODS)
        self._skipped: deque[int] = deque(maxlen=PERIODS)
        self._last: tuple[int, int] | None = None  # moment, and frames that had come by then

    def see(self, began_ns: int, ended_ns: int, captured: int) -> None:
        """Take note of a frame that was labelled from ``began_ns`` to ``ended_ns``, when so many had been captured."""
        if self._last is not None and captured > self._last[1]:
            came = captured - self._last[1]
            self._every_ns.append((ended_ns - self._last[0]) / came)
            self._skipped.append(came - 1)
        self._last = ended_ns, captured
        self._took_ns.append(ended_ns - began_ns)

    @property
    def is_over(self) -> bool:
        """Whether most frames come before the one before them is labelled."""
        return len(self._skipped) == PERIODS and sum(s > 0 for s in self._skipped) * 2 > PERIODS

    def cause(self, needed: NeededRate) -> Cause:
        """The budget as measured."""
        took, every = median(self._took_ns) / 1e6, median(self._every_ns) / 1e6
        share = sum(self._skipped) / (sum(self._skipped) + len(self._skipped))
        return Cause(
            Reason.OVERLOAD,
            f"a frame takes {took:.0f} ms and one comes every {every:.0f} ms: {share:.0%} are skipped; "
            f"the window needs {needed}",
        )
