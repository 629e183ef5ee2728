"""What wearable sensors measure at the moments of a clip's frames."""

from __future__ import annotations

import numpy as np

from kd_edge.data.signals.load import load_signals
from kd_edge.train.inputs.targets.base import Found, Group, StudentClips
from kd_edge.train.recipe.student_stages import SignalTargets
from kd_edge.types import Float32


def signals_of(target: SignalTargets, clips: StudentClips) -> Found:
    """(N, 3 m) of every clip, smoothed."""
    spans = {s.id: (int(clips.stamps_ns[s.id][0]), int(clips.stamps_ns[s.id][-1])) for s in clips.samples}
    signals = load_signals(clips.dataset, clips.samples, target.sensors).on_clips(spans)
    found = {}
    for sample in clips.samples:
        stamps = clips.stamps_ns[sample.id]
        values = signals.points(sample.id, *spans[sample.id], len(stamps))  # (m, 3, N)
        period_ms = (spans[sample.id][1] - spans[sample.id][0]) / max(1, len(stamps) - 1) / 1e6
        width = max(1, round(target.smooth_ms / max(period_ms, 1e-3)))
        found[sample.id] = _smooth(values.reshape(-1, len(stamps)), width).T.astype(np.float32)
    groups = tuple(Group(sensor, 3 * k, 3, False, target.weight) for k, sensor in enumerate(target.sensors))
    return Found(groups, found, {sensor: dict(why) for sensor, why in signals.lacking.items()})


def _smooth(series: Float32, width: int) -> np.ndarray:
    """Moving average over time of (M, N), the ends held."""
    if width < 2:
        return series
    padded = np.pad(series.astype(np.float64), ((0, 0), (width // 2, width - 1 - width // 2)), mode="edge")
    sums = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)
    result: np.ndarray = (sums[:, width:] - sums[:, :-width]) / width
    return result
