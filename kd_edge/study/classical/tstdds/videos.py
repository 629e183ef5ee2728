"""Cached clips as square 8-bit frames: what optical flow and the streams' networks look at."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kd_edge.data.cache.frames import CachedClips
from kd_edge.preprocess import centre_crop, plane
from kd_edge.types import Int64
from kd_edge.window import AnyWindow, clip_limits

UInt8 = npt.NDArray[np.uint8]


class Videos:
    """Frames of cached clips: intensity window to 0..255, central square.

    Args:
        cache: Cached clips whose frames have a shorter side of ``size`` or more.
        window: Intensity window that takes a raw value to [0, 1].
        size: Side S of the square frames.
    """

    def __init__(self, cache: CachedClips, window: AnyWindow, size: int) -> None:
        self._cache, self._window, self._size = cache, window, size

    def length(self, sample_id: str) -> int:
        """Number T of frames."""
        return len(self._cache.clip(sample_id).frames)

    def frames(self, sample_id: str, at: Int64 | None = None) -> UInt8:
        """Frames (N, S, S) or (N, S, S, 3) uint8 at the positions (N,), all T of them by default.

        Raises:
            DataError: The sample is not in the cache.
        """
        clip = self._cache.clip(sample_id)
        limits = clip_limits(clip.own_limits, clip.stamps_ns, self._window)
        crop = centre_crop(clip.frames.shape[1], clip.frames.shape[2], self._size)
        chosen = range(len(clip.frames)) if at is None else at
        planes = [plane(clip.frames[i], (float(limits[i, 0]), float(limits[i, 1])), crop, self._size) for i in chosen]
        return np.round(255 * np.stack(planes)).astype(np.uint8)


def gray(frames: UInt8) -> UInt8:
    """One channel (N, S, S) of frames (N, S, S) or (N, S, S, 3) in R, G, B order."""
    if frames.ndim == 3:
        return frames
    converted: npt.NDArray[Any] = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    return converted
