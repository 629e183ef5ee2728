"""One answer of the windows of several phases: the frames between two segments each end a window of another phase.

Their logits differ by where the segments happen to lie, and a label taken from the newest one alone flickers with it.
The mean of their log-probabilities does not; it is the softmax of the mean logits, for what makes a frame's logits
log-probabilities is the same number for all classes.
"""

from __future__ import annotations

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.errors import ConfigError
from kd_edge.runtime.memory import FEATURES_PER_SPACING, StampedRing
from kd_edge.types import Float32


class PhaseMean:
    """The mean logits of the windows that end within ``span_ns`` before the newest one, that one included.

    Memory is fixed, and frames are thinned as the features of a window are.

    Args:
        manifest: What the model says of itself: number of classes, segment spacing.
        span_ns: How long a window counts; 0 is the newest one alone.
    """

    def __init__(self, manifest: Manifest, span_ns: int) -> None:
        self._span_ns = span_ns
        self._ring = StampedRing(span_ns, max(1, manifest.spacing_ns // FEATURES_PER_SPACING))
        self._logits: Float32 = np.zeros((self._ring.capacity, len(manifest.labels)), dtype=np.float32)

    def clear(self) -> None:
        """Start anew: what follows has nothing to do with what was."""
        self._ring.clear()

    def add(self, stamp_ns: int, logits: Float32) -> list[float]:
        """Take in the (K,) logits of the window that ends at ``stamp_ns``, later than all before.

        Returns:
            The K mean logits; the given ones themselves where they are alone.
        """
        if self._span_ns == 0:
            alone: list[float] = logits.tolist()
            return alone
        newest = self._ring.append(stamp_ns)
        self._logits[newest] = logits
        count = sum(stamp > stamp_ns - self._span_ns for stamp in self._ring.stamps_ns)
        places = np.arange(newest - count + 1, newest + 1) % len(self._logits)
        mean: list[float] = self._logits[places].mean(axis=0, dtype=np.float64).tolist()
        return mean


def span_of(manifest: Manifest, smooth_ms: float | None) -> int:
    """How long a window counts, in ns: ``smooth_ms``, or one segment spacing, in which every phase occurs once.

    A model with states answers once per segment spacing: its windows have one phase.

    Raises:
        ConfigError: No number from 0 to the length of a window.
    """
    if smooth_ms is None:
        return 0 if manifest.states else manifest.spacing_ns
    is_number = isinstance(smooth_ms, (int, float, np.integer, np.floating)) and not isinstance(smooth_ms, bool)
    most_ms = manifest.clip_seconds * 1e3
    if not is_number or not 0 <= smooth_ms <= most_ms:
        raise ConfigError(
            f"smooth_ms {smooth_ms!r}",
            f"0 to {most_ms:,.0f} milliseconds, the window of '{manifest.name}'",
            "correct it; without it one segment spacing",
        )
    return round(smooth_ms * 1e6)
