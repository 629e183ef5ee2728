"""Depth motion maps: where something moved in a depth clip, seen from the front, from the side and from above.

Source: Chen, Liu, Kehtarnavaz, "Real-time human action recognition based on depth motion maps", J. Real-Time Image
Processing 2013: a frame is projected onto three orthogonal planes, the absolute differences of consecutive projections
are summed over the clip, and the part that is not 0 is brought to a fixed size.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from kd_edge.errors import DataError
from kd_edge.study.classical.fusion.config import Projection
from kd_edge.types import Float32

_Depth = npt.NDArray[np.unsignedinteger]
_Float64 = npt.NDArray[np.float64]


class MotionMaps(NamedTuple):
    """Sums over the clip.

    Attributes:
        front: (H, W) float32, in mm.
        side: (H, D) float32, over image rows and depth bins; in pixels, or in changes of occupied bins.
        top: (D, W) float32, over depth bins and image columns; in pixels, or in changes of occupied bins.
    """

    front: Float32
    side: Float32
    top: Float32


def trimmed(frames: _Depth, count: int) -> _Depth:
    """Frames without the first and last ``count``, fewer where less than two frames (T >= 2) would be left."""
    cut = min(count, (len(frames) - 2) // 2)
    return frames[cut : len(frames) - cut] if cut > 0 else frames


def motion_maps(
    frames: _Depth,
    *,
    bin_mm: int,
    range_mm: int,
    projection: Projection = "occupied",
    silhouette: bool = True,
    weights: npt.NDArray[np.floating] | None = None,
) -> MotionMaps:
    """Motion maps of a depth clip.

    Args:
        frames: (T, H, W) in mm, 0 = no measurement, T >= 2.
        bin_mm: Depth of one bin of the side and top views.
        range_mm: Farther pixels count as the last bin; D is ``ceil(range_mm / bin_mm)``.
        projection: What a bin of a projected frame holds: 1 where there is any pixel, or the number of pixels.
        silhouette: Whether the front view counts pixels that are measured in only one of two frames; they differ by
            metres.
        weights: (T - 1,) weights of the pairs of consecutive frames; None weighs all by 1.

    Raises:
        DataError: Fewer than two frames, or no depth images.
    """
    if frames.ndim != 3 or frames.dtype.kind != "u" or len(frames) < 2:
        raise DataError(f"a clip of {frames.dtype} {frames.shape}", "two depth images or more", "leave this clip out")
    height, width = frames.shape[1:]
    bins = -(-range_mm // bin_mm)
    sums = (np.zeros((height, width)), np.zeros((height, bins)), np.zeros((bins, width)))
    before: tuple[_Float64, _Float64, _Float64] | None = None
    for pair, frame in enumerate(frames, -1):
        now = _projected(frame, bin_mm, bins, projection)
        if before is not None:
            front = np.abs(now[0] - before[0])
            if not silhouette:
                front *= (now[0] > 0) & (before[0] > 0)
            weight = 1.0 if weights is None else float(weights[pair])
            for total, moved in zip(sums, (front, np.abs(now[1] - before[1]), np.abs(now[2] - before[2])), strict=True):
                total += weight * moved
        before = now
    front, side, top = (total.astype(np.float32) for total in sums)
    return MotionMaps(front, side, top)


def _projected(frame: _Depth, bin_mm: int, bins: int, projection: Projection) -> tuple[_Float64, _Float64, _Float64]:
    """One frame from the front (H, W) in mm, from the side (H, D) and from above (D, W)."""
    height, width = frame.shape
    row, column = np.nonzero(frame)
    depth = np.minimum(frame[row, column].astype(np.int64) // bin_mm, bins - 1)
    side = np.bincount(row * bins + depth, minlength=height * bins).reshape(height, bins).astype(np.float64)
    top = np.bincount(depth * width + column, minlength=bins * width).reshape(bins, width).astype(np.float64)
    if projection == "occupied":
        side, top = np.minimum(side, 1), np.minimum(top, 1)
    return frame.astype(np.float64), side, top


def box(motion: Float32, share: float = 0.0) -> tuple[slice, slice]:
    """Rows and columns of the bounding box of what moved.

    Args:
        motion: (H, W), values >= 0.
        share: Rows and columns whose sum is at most this share of the largest one are noise; 0 keeps whatever is not 0.

    Returns:
        The whole map where nothing moved.
    """
    rows, columns = motion.sum(axis=1, dtype=np.float64), motion.sum(axis=0, dtype=np.float64)
    if not rows.any():
        return slice(0, len(rows)), slice(0, len(columns))
    kept = [np.flatnonzero(sums > share * sums.max()) for sums in (rows, columns)]
    return slice(kept[0][0], kept[0][-1] + 1), slice(kept[1][0], kept[1][-1] + 1)


def resized(motion: Float32, height: int, width: int) -> Float32:
    """A map at a fixed size, by the mean over areas where it gets smaller."""
    smaller = motion.shape[0] >= height and motion.shape[1] >= width
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(motion, (width, height), interpolation=method), dtype=np.float32)
