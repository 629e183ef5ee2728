"""Signals of wearable sensors as network input: resampled onto a clip's time, with random changes in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kd_edge.data.signals.load import Signals
from kd_edge.train.inputs.draws import Draws
from kd_edge.train.recipe.augment import SignalJitter
from kd_edge.types import Float32, Int64


@dataclass(frozen=True)
class SignalInput:
    """How a sample's signals are prepared.

    Attributes:
        signals: The recordings of all samples.
        points: n, after resampling.
        jitter: Random changes; None is evaluation.
    """

    signals: Signals
    points: int
    jitter: SignalJitter | None

    def of(self, sample_id: str, stamps_ns: Int64, draws: Draws) -> Float32:
        """A sample's signals over the time of its clip, with random changes.

        Args:
            sample_id: Which sample.
            stamps_ns: (T,) of the clip's images.
            draws: Random numbers of this sample in this epoch.

        Returns:
            (m, 3, n) in the sensors' units; all NaN for a sensor that the sample lacks.
        """
        start, end = float(stamps_ns[0]), float(stamps_ns[-1])
        if self.jitter is None:
            return self.signals.points(sample_id, int(start), int(end), self.points)
        span = draws.of("span")
        shift = span.uniform(-self.jitter.shift, self.jitter.shift) * (end - start)
        longer = span.uniform(-self.jitter.stretch, self.jitter.stretch) * (end - start) / 2
        values = self.signals.points(sample_id, round(start + shift - longer), round(end + shift + longer), self.points)
        return self._changed(values, self.jitter, draws)

    def _changed(self, values: Float32, jitter: SignalJitter, draws: Draws) -> Float32:
        """Rotate, amplify and add noise, as far as enabled."""
        count = len(values)
        if jitter.rotation_degrees:
            values = _turns(count, jitter, draws) @ values  # (m, 3, 3) x (m, 3, n)
        if jitter.gain:
            gains = draws.of("gain").uniform(1 - jitter.gain, 1 + jitter.gain, (count, 1, 1))
            values = values * gains.astype(np.float32)
        if jitter.noise:
            widths = [high - low for low, high in (f.value_range for f in self.signals.formats)]
            spread = jitter.noise * np.array(widths, dtype=np.float32)[:, None, None]
            values = values + spread * draws.of("noise").standard_normal(values.shape, dtype=np.float32)
        return values


def _turns(count: int, jitter: SignalJitter, draws: Draws) -> Float32:
    """Rotation matrices (count, 3, 3) about random axes (Rodrigues' formula)."""
    rng = draws.of("rotation")
    axes = rng.standard_normal((count, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angles = np.deg2rad(rng.uniform(-jitter.rotation_degrees, jitter.rotation_degrees, (count, 1, 1)))
    x, y, z = axes.T
    zero = np.zeros(count)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(count, 3, 3)
    turns: Float32 = (np.eye(3) + np.sin(angles) * cross + (1 - np.cos(angles)) * (cross @ cross)).astype(np.float32)
    return turns
