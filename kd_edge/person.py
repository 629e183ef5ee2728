"""Locate the person in each frame, smooth the place over time, and compute the square around it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.crop import Crop, PersonRegion, opencv
from kd_edge.types import Float32, Image, Int64

_HIT = 255  # OpenCV marks a pixel inside the range with this
_FEET, _HEAD = 0.98, 0.02
"""Shares of a person's pixels that lie above the rows taken as feet and head, so that stray pixels do not count."""
STATISTICS_PIXELS = 4096
"""Upper limit for the pixels of the resized frame, on a regular grid, used for a statistic of its values."""
NOWHERE = (math.nan, math.nan, math.nan)


class Place(NamedTuple):
    """Place of a person in a frame; all values are NaN if there is nobody.

    The values are exact in float32, the type in which they are cached.

    Attributes:
        x: Centre as a share of the frame's width.
        y: Centre as a share of the frame's height.
        scale: Length of a metre at the person's distance, as a share of the frame's width.
    """

    x: float
    y: float
    scale: float


class LowPass:
    """First-order low-pass over time stamps of a few values that are measured together.

    Args:
        time_constant_ms: Time constant; 0 follows every frame.
    """

    def __init__(self, time_constant_ms: float) -> None:
        self._tau_ns = time_constant_ms * 1e6
        self.reset()

    def reset(self) -> None:
        """Forget the past (start, gap, size change)."""
        self._values: tuple[float, ...] | None = None
        self._stamp_ns = 0

    def of(self, measured: tuple[float, ...], stamp_ns: int) -> tuple[float, ...]:
        """Filter the values of a frame; NaN returns the previous output, which is NaN before the first measurement."""
        if not math.isnan(measured[0]):
            if self._values is None:
                self._values = measured
            else:
                gain = 1.0 if self._tau_ns == 0 else -math.expm1(-(stamp_ns - self._stamp_ns) / self._tau_ns)
                self._values = tuple(old + gain * (new - old) for old, new in zip(self._values, measured, strict=True))
        self._stamp_ns = stamp_ns
        return measured if self._values is None else self._values


class PersonTrack:
    """Smoothed places of a person in a stream's frames."""

    def __init__(self, region: PersonRegion) -> None:
        self._smooth = LowPass(region.time_constant_ms)

    def reset(self) -> None:
        """Forget the past (start, gap, size change)."""
        self._smooth.reset()

    def of(self, measured: Place, stamp_ns: int) -> Place:
        """Return the smoothed place for a frame captured at ``stamp_ns``."""
        return _as_float32(*self._smooth.of(measured, stamp_ns))


def clip_places(own_places: Float32, stamps_ns: Int64, region: PersonRegion) -> Float32:
    """Compute the smoothed places of every frame of a recorded clip, exactly as in a stream that starts with it.

    Args:
        own_places: (N, 3) float32 from ``measure`` of each frame.
        stamps_ns: (N,) int64.
        region: The region that was measured.

    Returns:
        (N, 3) float32.
    """
    track = PersonTrack(region)
    pairs = zip(own_places.tolist(), stamps_ns.tolist(), strict=True)
    return np.array([track.of(Place(*own), stamp) for own, stamp in pairs], dtype=np.float32).reshape(-1, 3)


def measure(resized: Image, region: PersonRegion, mask: Image | None = None) -> Place:
    """Locate the person in one frame, using that frame alone.

    The centre is the median column and row of the foreground, which a stretched arm hardly moves. The scale is derived
    from the median distance, or from the height between head and feet if the camera measures no distance.

    Args:
        resized: (h, w), uint8 or uint16.
        region: Definition of the foreground.
        mask: Optional (h, w) uint8 work buffer.
    """
    cv2 = opencv()
    mask = cv2.inRange(resized, region.low, region.high, dst=mask)
    height, width = resized.shape
    per_row = _counts(cv2, mask, 1)
    total = float(per_row.sum())
    if total < max(1.0, region.minimum_share * resized.size):
        return Place(*NOWHERE)
    x, y = _quantile(_counts(cv2, mask, 0), 0.5) / width, _quantile(per_row, 0.5) / height
    if region.focal is not None:
        step = grid_step(resized.shape)
        values, is_person = resized[::step, ::step], mask[::step, ::step] > 0
        distances = values[is_person]
        if distances.size == 0:  # the few foreground pixels lie between the grid's points
            return Place(*NOWHERE)
        return _as_float32(x, y, region.focal / (float(np.median(distances)) * region.metres))
    tall = max(1.0, _quantile(per_row, _FEET) - _quantile(per_row, _HEAD))
    return _as_float32(x, y, tall / width / region.height_m)


def grid_step(shape: tuple[int, ...]) -> int:
    """Step between the rows and columns of a resized frame (h, w) that are sampled for statistics of its values."""
    return max(1, math.ceil(math.sqrt(shape[0] * shape[1] / STATISTICS_PIXELS)))


def person_square(place: Place, region: PersonRegion, shape: tuple[int, ...]) -> Crop:
    """Return the square around a place in a frame of shape (h, w), which it may exceed; the central one if NaN."""
    height, width = shape[:2]
    if math.isnan(place.x):
        x, y, side = 0.5, 0.5, float(min(height, width))
    else:
        x, y, side = place.x, place.y, region.side_m * place.scale * width
    tall, wide = side / height, side / width
    return Crop(y - tall / 2, x - wide / 2, tall, wide, is_free=True)


def _counts(cv2: object, mask: Image, axis: int) -> npt.NDArray[np.float64]:
    """Count the foreground pixels of each column (axis 0) or row (axis 1)."""
    sums = cv2.reduce(mask, axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)  # type: ignore[attr-defined]
    counts: npt.NDArray[np.float64] = sums.ravel() / _HIT
    return counts


def _quantile(counts: npt.NDArray[np.float64], share: float) -> float:
    """Return the position, in (fractional) pixels from the edge, before which a share of all counted pixels lies."""
    before = np.cumsum(counts)
    wanted = share * before[-1]
    index = int(np.searchsorted(before, wanted))
    return float(index + 1 - (before[index] - wanted) / counts[index])


def _as_float32(x: float, y: float, scale: float) -> Place:
    rounded = np.array((x, y, scale), dtype=np.float32).tolist()
    return Place(*rounded)
