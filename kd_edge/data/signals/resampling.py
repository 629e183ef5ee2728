"""One signal of a wearable sensor: validation, coverage of a time interval, and resampling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import SignalFormat
from kd_edge.errors import DataError
from kd_edge.types import Clip, Float32, Int64

_RATE_FACTOR = 2.0

Float64 = npt.NDArray[np.float64]


class Signal(NamedTuple):
    """Recording of one sensor during one sample.

    Attributes:
        values: (T, 3) float32 in the sensor's unit.
        stamps_ns: (T,) int64, strictly increasing, on the clock of the sample's images.
    """

    values: Float32
    stamps_ns: Int64


def resample(signal: Signal, start_ns: int, end_ns: int, points: int, *, period: float | None = None) -> Float32:
    """Divide a time interval into ``points`` equal parts and return the mean of the signal over each.

    The signal is linear between its samples and constant before the first and after the last. With fewer samples than
    points this is linear interpolation in the middle of each part; with more, it is piecewise aggregate approximation
    by time, free of aliasing.

    Angles take the short way from sample to sample instead of passing through the whole circle: 350, 355, 5, 10 degrees
    increase. Their means lie in [0, period), or in [-period / 2, period / 2) if the axis has a negative sample nearby.

    Args:
        signal: Signal of at least one sample.
        start_ns: Start of the interval.
        end_ns: End of the interval, >= ``start_ns``; for an empty interval the value is repeated.
        points: Number of parts, >= 1.
        period: Full turn of angles in their unit, see ``SignalFormat.period``; None for other values.

    Returns:
        (3, points) float32.

    Raises:
        DataError: There are no samples or points, or the interval ends before it starts.
    """
    check_stretch(start_ns, end_ns, points)
    stamps_ns = signal.stamps_ns
    if not len(stamps_ns):
        raise DataError("a signal without samples", "at least one", "leave it out")
    first = max(int(stamps_ns.searchsorted(start_ns, "right")) - 1, 0)
    last = min(int(stamps_ns.searchsorted(end_ns, "left")) + 1, len(stamps_ns))
    times = (stamps_ns[first:last] - start_ns).astype(np.float64)
    values = signal.values[first:last].T.astype(np.float64)  # (3, samples near by)
    if period is not None:
        lowest = np.where(values.min(axis=1, keepdims=True) < 0, -period / 2, 0.0)  # (3, 1)
        means = _means(times, np.unwrap(values, axis=1, period=period), float(end_ns - start_ns), points)
        return ((means - lowest) % period + lowest).astype(np.float32)
    return _means(times, values, float(end_ns - start_ns), points).astype(np.float32)


def _means(times: Float64, values: Float64, length: float, points: int) -> Float64:
    """Means (3, points) of values (3, N) at times (N,) over the equal parts of [0, length]."""
    if length == 0:
        instant = np.array([np.interp(0.0, times, axis) for axis in values])
        return np.repeat(instant[:, None], points, axis=1)
    width = length / points
    edges = np.arange(points + 1) * width
    # The signal is linear between neighbouring edges and samples, so the trapezoid is its exact integral.
    knots = np.sort(np.concatenate([edges, times[(times > 0) & (times < edges[-1])]]))
    at = np.empty((3, len(knots)))
    for axis in range(3):
        at[axis] = np.interp(knots, times, values[axis])
    areas = (at[:, 1:] + at[:, :-1]) * (np.diff(knots) / (2 * width))
    means: Float64 = np.add.reduceat(areas, knots.searchsorted(edges[:-1]), axis=1)
    return means


def check_stretch(start_ns: int, end_ns: int, points: int) -> None:
    """Raise a DataError for a time interval that ends before it starts, or without points."""
    if points < 1 or end_ns < start_ns:
        raise DataError(
            f"{points} points from {start_ns} ns to {end_ns} ns",
            "at least one point, and an end that is not before the start",
            "correct the time interval",
        )


def covered(stamps_ns: Int64, start_ns: int, end_ns: int, hole_ns: int) -> float:
    """Return the share of a time interval between samples, not counting gaps longer than ``hole_ns``."""
    if start_ns == end_ns:
        return float(stamps_ns[0] <= start_ns <= stamps_ns[-1])
    steps = np.diff(stamps_ns.clip(start_ns, end_ns))
    covered: float = steps[np.diff(stamps_ns) <= hole_ns].sum() / (end_ns - start_ns)
    return covered


def fault_of(clip: Clip, signal_format: SignalFormat) -> str | None:
    """Return what is wrong with a decoded signal, as the end of a sentence; None if it is valid."""
    frames, stamps_ns = clip.frames, clip.stamps_ns
    if frames.ndim != 2 or frames.shape[1] != 3 or stamps_ns.shape != frames.shape[:1]:
        return f"has values {frames.shape} with {stamps_ns.shape} stamps, not (T, 3) with (T,)"
    if len(frames) < 2:
        return f"has {len(frames)} samples, at least 2 are needed"
    if not (np.abs(frames) <= np.finfo(np.float32).max).all():  # NaN is not
        return "has values that are not finite"
    steps_ns = np.diff(stamps_ns)
    if not (steps_ns > 0).all():
        return "has stamps that do not increase"
    rate_hz = 1e9 / float(np.median(steps_ns))
    if not signal_format.rate_hz / _RATE_FACTOR <= rate_hz <= signal_format.rate_hz * _RATE_FACTOR:
        return f"has {rate_hz:.3g} samples per second instead of {signal_format.rate_hz:g}"
    return None
