"""Whether machine and program keep up with a camera: the time per frame, and how often one comes."""

from __future__ import annotations

from collections import deque
from statistics import median

from kd_edge.runtime.rate import PERIODS, NeededRate
from kd_edge.types import Cause, Reason


class Load:
    """Medians over the last frames of a live stream."""

    def __init__(self) -> None:
        self._took_ns: deque[int] = deque(maxlen=PERIODS)
        self._away_ns: deque[int] = deque(maxlen=PERIODS)
        self._every_ns: deque[float] = deque(maxlen=PERIODS)
        self._skipped: deque[int] = deque(maxlen=PERIODS)
        self._last: tuple[int, int] | None = None  # time, and frames captured by then

    def see(self, began_ns: int, ended_ns: int, captured: int, away_ns: int = 0) -> None:
        """Add a labelled frame.

        Args:
            began_ns: Start of its step.
            ended_ns: End of its step.
            captured: Number of frames captured by then.
            away_ns: Time the caller spent since the previous frame.
        """
        if self._last is not None and captured > self._last[1]:
            came = captured - self._last[1]
            self._every_ns.append((ended_ns - self._last[0]) / came)
            self._skipped.append(came - 1)
        self._last = ended_ns, captured
        self._took_ns.append(ended_ns - began_ns)
        self._away_ns.append(away_ns)

    @property
    def is_over(self) -> bool:
        """Whether most frames arrive before the previous one is labelled."""
        return len(self._skipped) == PERIODS and sum(s > 0 for s in self._skipped) * 2 > PERIODS

    def cause(self, needed: NeededRate) -> Cause:
        """The cause, with the measured times."""
        took, away, every = (median(each) / 1e6 for each in (self._took_ns, self._away_ns, self._every_ns))
        share = sum(self._skipped) / (sum(self._skipped) + len(self._skipped))
        reason, found = Reason.OVERLOAD, f"a frame takes {took:.0f} ms and one"
        if away > took:
            reason, found = Reason.SLOW_PROGRAM, f"the program takes {away:.0f} ms between two labels and a frame"
        return Cause(reason, f"{found} comes every {every:.0f} ms: {share:.0%} are skipped; the window needs {needed}")
