"""The frame rate that a model needs, and the one that a source has."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

from kd_edge.artifact import Manifest

PERIODS = 9
"""The period is the median of this many frame intervals, so that single gaps and bursts do not matter."""
ENOUGH_PERIODS = 3


@dataclass(frozen=True, slots=True)
class NeededRate:
    """The frame rate that a model's window needs.

    Attributes:
        least_fps: Below it no window is ever full: a segment would have no frame within half a spacing.
        full_fps: Below it every label is ``degraded``: frames lie more than a quarter of a spacing from their segment,
            or further from a motion offset than half way to the next.
    """

    least_fps: float
    full_fps: float

    @classmethod
    def of(cls, manifest: Manifest) -> NeededRate:
        """The rate that follows from a model's spacing and motion offsets."""
        spacing_ms = manifest.spacing_ns / 1e6
        steps_ms = [b - a for a, b in pairwise(manifest.preprocess.motion_offsets_ms)]
        return cls(1e3 / spacing_ms, 1e3 / min(spacing_ms / 2, *steps_ms, spacing_ms))

    def __str__(self) -> str:
        return f"at least {self.least_fps:.1f} frames/s, {self.full_fps:.1f} for labels that are not degraded"


class RateMeter:
    """Measures the frame rate of one source from the stamps of its frames."""

    def __init__(self) -> None:
        self._periods_ns: deque[int] = deque(maxlen=PERIODS)
        self._stamp_ns: int | None = None

    def reset(self) -> None:
        """Forget all frames."""
        self._stamp_ns = None

    def see(self, stamp_ns: int) -> None:
        """Add a frame, captured later than all before."""
        if self._stamp_ns is not None:
            self._periods_ns.append(stamp_ns - self._stamp_ns)
        self._stamp_ns = stamp_ns

    @property
    def fps(self) -> float | None:
        """Frames per second; None until there are enough frames."""
        if len(self._periods_ns) < ENOUGH_PERIODS:
            return None
        return 1e9 / sorted(self._periods_ns)[len(self._periods_ns) // 2]
