"""The planes the network sees of each frame: cut from the whole frame, or from the region around whoever is in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from kd_edge.crop import Crop, ForegroundRegion, crop_inside
from kd_edge.preprocess import Preprocess, evaluation_crop, plane
from kd_edge.runtime.memory import MotionHistory, Stack
from kd_edge.types import Float32, Image

_LIMITS = 2  # a row starts with the frame's intensity limits


class Planes(Protocol):
    """Planes of the newest frames of one source, all of one size, in fixed memory."""

    def clear(self) -> None:
        """Forget all frames."""
        ...

    def append(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> Stack | None:
        """Take in a frame.

        Args:
            resized: (h, w) or (h, w, 3), uint8 or uint16.
            limits: Raw values that become 0 and 1.
            stamp_ns: Moment of capture, later than all before.

        Returns:
            One (S, S) or (S, S, 3) plane per motion offset; None while the motion history is too short.
        """
        ...


def planes_of(spec: Preprocess, resized: Image, longest_gap_ns: int) -> Planes:
    """Memory for the planes of a source.

    Args:
        spec: The preprocessing.
        resized: Any resized frame of the source, for its shape and dtype.
        longest_gap_ns: Frames further apart start the motion history anew.
    """
    if isinstance(spec.region, ForegroundRegion):
        return RegionPlanes(spec, spec.region, resized, longest_gap_ns)
    return WholePlanes(spec, resized, longest_gap_ns)


class WholePlanes:
    """Planes cut from the centre of the whole frame: final as soon as their frame is there; see ``Planes``."""

    def __init__(self, spec: Preprocess, resized: Image, longest_gap_ns: int) -> None:
        self._size = spec.input_px
        self._crop = evaluation_crop(resized.shape[0], resized.shape[1], spec)
        shape = (self._size, self._size, *resized.shape[2:])
        self._history = MotionHistory(spec.motion_offsets_ms, shape, longest_gap_ns)

    def clear(self) -> None:
        """Forget all frames."""
        self._history.clear()

    def append(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> Stack | None:
        """Cut the frame's plane and stack it on those of earlier frames."""
        plane(resized, limits, self._crop, self._size, out=self._history.append(stamp_ns))
        return self._history.stack()


class RegionPlanes:
    """Planes cut from a foreground region; see ``Planes``.

    The newest frame decides where all frames of the stack are cut, so that what stands still stays in place: resized
    frames and their limits are kept, and the stack's planes are made for every frame.
    """

    def __init__(self, spec: Preprocess, region: ForegroundRegion, resized: Image, longest_gap_ns: int) -> None:
        size = spec.input_px
        self._region, self._size = region, size
        self._crop = evaluation_crop(resized.shape[0], resized.shape[1], spec)
        self._mask = np.empty(resized.shape, dtype=np.uint8)
        self._scratch: Image = np.empty((size, size), dtype=resized.dtype)
        self._planes: Float32 = np.zeros((len(spec.motion_offsets_ms), size, size), dtype=np.float32)
        self._shape, self._dtype = resized.shape, resized.dtype
        words = -(-resized.nbytes // 4)
        self._history = MotionHistory(spec.motion_offsets_ms, (_LIMITS + words,), longest_gap_ns)

    def clear(self) -> None:
        """Forget all frames."""
        self._history.clear()

    def append(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> Stack | None:
        """Keep the frame and cut it and earlier ones where it tells."""
        row = self._history.append(stamp_ns)
        row[:_LIMITS] = limits
        self._frame(row)[:] = resized
        stack = self._history.stack()
        if stack is None:
            return None
        crop = crop_inside(self._region, self._crop, resized, self._mask)
        return replace(stack, planes=[self._cut(row, crop, k) for k, row in enumerate(stack.planes)])

    def _cut(self, row: Float32, crop: Crop, index: int) -> Float32:
        limits = float(row[0]), float(row[1])
        return plane(self._frame(row), limits, crop, self._size, self._planes[index], self._scratch)

    def _frame(self, row: Float32) -> Any:
        """The frame stored in a row of the history, whose memory is used as it is: no float is made of a pixel."""
        pixels = row[_LIMITS:].view(self._dtype)
        return pixels[: self._shape[0] * self._shape[1]].reshape(self._shape)
