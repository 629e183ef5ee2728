"""Averages windows of several phases: each frame between two segments ends a window with differently placed segments.

A label of the newest window alone would flicker with the phase; the mean of the log-probabilities does not. It equals
the log-softmax of the mean logits up to a constant, since logits and log-probabilities differ by the same number for
all classes.
"""

from __future__ import annotations

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.errors import ConfigError
from kd_edge.runtime.memory import FEATURES_PER_SPACING, StampedRing
from kd_edge.types import Float32


class PhaseMean:
    """Mean logits of the windows that ended within the last ``span_ns``, including the newest one.

    Memory is fixed; frames are thinned like the features of a window.

    Args:
        manifest: Manifest of the model: number of classes, segment spacing.
        span_ns: Averaging time; 0 uses the newest window alone.
    """

    def __init__(self, manifest: Manifest, span_ns: int) -> None:
        self._span_ns = span_ns
        self._ring = StampedRing(span_ns, max(1, manifest.spacing_ns // FEATURES_PER_SPACING))
        self._logits: Float32 = np.zeros((self._ring.capacity, len(manifest.labels)), dtype=np.float32)

    def clear(self) -> None:
        """Forget all windows."""
        self._ring.clear()

    def add(self, stamp_ns: int, logits: Float32) -> list[float]:
        """Add the (K,) logits of the window that ends at ``stamp_ns``, later than all before.

        Returns:
            The K mean logits; the given ones if there are no others.
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
    """Averaging time in ns: ``smooth_ms``, or by default one segment spacing, in which every phase occurs once.

    A model with states gives one result per segment spacing: its windows have a single phase.

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
