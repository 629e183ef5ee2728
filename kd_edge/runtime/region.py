"""Past frames of a source whose motion stack is cropped by its newest frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from kd_edge.crop import Crop, ForegroundRegion, crop_inside
from kd_edge.preprocess import Preprocess, evaluation_crop, plane
from kd_edge.runtime.memory import MotionHistory
from kd_edge.types import Float32, Image

_LIMITS = 2  # a row starts with the frame's intensity limits


class RegionPlanes:
    """Planes of the frames of one source under a foreground region, in fixed memory.

    Planes cut from the whole frame are final as soon as their frame is there. Here the newest frame decides where all
    frames of the stack are cut, so that what stands still stays in place: resized frames and their limits are kept, and
    the stack's planes are made for every frame.

    Args:
        spec: With a foreground region.
        resized: Any resized frame of the source.
        longest_gap_ns: Frames further apart start the history anew.
    """

    def __init__(self, spec: Preprocess, resized: Image, longest_gap_ns: int) -> None:
        assert isinstance(spec.region, ForegroundRegion)
        self._spec, self._region = spec, spec.region
        self._crop = evaluation_crop(resized.shape[0], resized.shape[1], spec)
        size = spec.input_px
        self._mask = np.empty(resized.shape, dtype=np.uint8)
        self._scratch: Image = np.empty((size, size), dtype=resized.dtype)
        self._planes: Float32 = np.zeros((len(spec.motion_offsets_ms), size, size), dtype=np.float32)
        self._history: MotionHistory | None = None
        self._shape, self._dtype = resized.shape, resized.dtype
        if spec.has_motion:
            words = -(-resized.nbytes // 4)
            self._history = MotionHistory(spec.motion_offsets_ms, (_LIMITS + words,), longest_gap_ns)

    def clear(self) -> None:
        """Forget all frames."""
        if self._history is not None:
            self._history.clear()

    def append(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> tuple[list[Float32], int] | None:
        """Take in a frame.

        Returns:
            One (S, S) plane per motion offset, newest first, and by how many ns the furthest lies outside the
            tolerance about its moment; None while the history is too short.
        """
        crop = crop_inside(self._region, self._crop, resized, self._mask)
        if self._history is None:
            return [self._plane(resized, limits, crop, 0)], 0
        row = self._history.append(stamp_ns)
        row[:_LIMITS] = limits
        self._frame(row)[:] = resized
        stack = self._history.planes()
        if stack is None:
            return None
        rows, error_ns = stack
        planes = [self._plane(self._frame(r), (float(r[0]), float(r[1])), crop, k) for k, r in enumerate(rows)]
        return planes, max(0, error_ns - self._history.tolerance_ns)

    def _plane(self, frame: Image, limits: tuple[float, float], crop: Crop, index: int) -> Float32:
        return plane(frame, limits, crop, self._spec.input_px, self._planes[index], self._scratch)

    def _frame(self, row: Float32) -> Any:
        """The frame stored in a row of the history, whose memory is used as it is: no float is made of a pixel."""
        pixels = row[_LIMITS:].view(self._dtype)
        return pixels[: self._shape[0] * self._shape[1]].reshape(self._shape)
