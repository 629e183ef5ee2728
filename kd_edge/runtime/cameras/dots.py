"""Detect bright isolated dots in a picture, as projected onto the scene by a stereo camera."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.packages import import_extra
from kd_edge.types import Image

RING_PX = 3
"""A dot is brighter than everything at this distance, so it is smaller than 5 pixels; a line or an edge never is."""
NOISE_DEVIATIONS = 5.0
LEAST_SHARE = 0.03
LEAST_STEP = 3.0
"""Minimum step in brightness: the largest of noise deviations, a share of the picture's span, and raw units."""
TILES = 6
Float64 = npt.NDArray[np.float64]
_DEVIATION_OF_DIFFERENCE = 0.954  # median absolute difference of two values with normal noise of unit deviation


def dots_per_1000(image: Image) -> float:
    """Bright minus dark isolated dots per 1000 pixels of a picture (H, W), in its median tile.

    A projector draws about ten, all over the scene, of which about five are isolated. A scene's own texture has as
    many dark dots as bright ones, and rarely everywhere: ordinary pictures have less than one.
    """
    limit = np.iinfo(image.dtype).max
    excess = _by_tile(_dots(image), image) - _by_tile(_dots(limit - image), image)
    return max(0.0, float(np.median(excess)) * 1000.0 * TILES**2 / image.size)


def _dots(image: Image) -> Float64:
    """Centres (N, 2) of bright isolated dots, x and y."""
    cv2: Any = import_extra("cv2", "cpu")
    size = 2 * RING_PX + 1
    ring = np.ones((size, size), np.uint8)
    ring[1:-1, 1:-1] = 0
    around = cv2.dilate(image, ring)
    step = max(NOISE_DEVIATIONS * _noise(image), LEAST_SHARE * float(np.ptp(image[::4, ::4])), LEAST_STEP)
    is_dot = (image > around + np.float32(step)).view(np.uint8)
    centres: Float64 = cv2.connectedComponentsWithStats(is_dot, connectivity=8)[3][1:]  # without the background
    return centres


def _by_tile(centres: Float64, image: Image) -> Float64:
    """Count the dots in each of ``TILES`` x ``TILES`` tiles."""
    height, width = image.shape
    counts: Float64 = np.histogram2d(centres[:, 0], centres[:, 1], TILES, ((0, width), (0, height)))[0]
    return counts


def _noise(image: Image) -> float:
    """Noise deviation from neighbouring pixels of every fourth row, most of which show the same surface."""
    rows = image[::4].astype(np.float32)
    return float(np.median(np.abs(np.diff(rows, axis=1)))) / _DEVIATION_OF_DIFFERENCE
