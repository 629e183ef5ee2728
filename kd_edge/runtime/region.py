"""The planes the network sees of each frame: cut from the whole frame, or from the region around whoever is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kd_edge.crop import Crop, ForegroundRegion, FrameRegion, PersonRegion, crop_pixels
from kd_edge.person import PersonTrack, Place, measure
from kd_edge.preprocess import Normalise, Preprocess, crop_inside, cut, evaluation_crop
from kd_edge.runtime.memory import MotionHistory, Stack
from kd_edge.types import Float32, Image


class Planes(Protocol):
    """Planes of the newest frames of one source, all of one size, in fixed memory."""

    def clear(self) -> None:
        """Forget all frames."""
        ...

    def append(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> Stack[Float32] | None:
        """Take in a frame.

        Args:
            resized: (h, w) or (h, w, 3), uint8 or uint16.
            limits: Raw values that become 0 and 1.
            stamp_ns: Moment of capture, later than all before.

        Returns:
            One plane per motion offset, as ``Normalise.stack`` takes them; None while the motion history is too short.
        """
        ...


def planes_of(spec: Preprocess, resized: Image, longest_gap_ns: int) -> Planes:
    """Memory for the planes of a source.

    Args:
        spec: The preprocessing.
        resized: Any resized frame of the source, for its shape and dtype.
        longest_gap_ns: Frames further apart start the motion history anew.
    """
    if isinstance(spec.region, FrameRegion):
        return WholePlanes(spec, resized, longest_gap_ns)
    return RegionPlanes(spec, spec.region, resized, longest_gap_ns)


class WholePlanes:
    """Planes cut from the centre of the whole frame: final as soon as their frame is there; see ``Planes``."""

    def __init__(self, spec: Preprocess, resized: Image, longest_gap_ns: int) -> None:
        self._part = crop_pixels(resized.shape, evaluation_crop(resized.shape[0], resized.shape[1], spec))
        self._normalise = Normalise(spec)
        shape = resized[self._part].shape
        self._history: MotionHistory[Float32] = MotionHistory(
            spec.motion_offsets_ms, lambda count: list(np.zeros((count, *shape), dtype=np.float32)), longest_gap_ns
        )

    def clear(self) -> None:
        """Forget all frames."""
        self._history.clear()

    def append(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> Stack[Float32] | None:
        """Cut the frame's plane and stack it on those of earlier frames."""
        self._normalise.plane(resized[self._part], limits, out=self._history.append(stamp_ns))
        return self._history.stack()


@dataclass(slots=True)
class _Kept:
    """A resized frame and its limits."""

    frame: Image
    limits: tuple[float, float] = (0.0, 1.0)


class RegionPlanes:
    """Planes cut from the region around whoever is in view; see ``Planes``.

    The newest frame decides where all frames of the stack are cut, so that what stands still stays in place: resized
    frames and their limits are kept, and the stack's planes are made for every frame.
    """

    def __init__(
        self, spec: Preprocess, region: ForegroundRegion | PersonRegion, resized: Image, longest_gap_ns: int
    ) -> None:
        size = spec.input_px
        self._region, self._size, self._normalise = region, size, Normalise(spec)
        self._track = PersonTrack(region) if isinstance(region, PersonRegion) else None
        self._crop = evaluation_crop(resized.shape[0], resized.shape[1], spec)
        self._mask = np.empty(resized.shape, dtype=np.uint8)
        self._scratch: Image = np.empty((size, size), dtype=resized.dtype)
        self._planes: Float32 = np.zeros((len(spec.motion_offsets_ms), size, size), dtype=np.float32)
        self._history: MotionHistory[_Kept] = MotionHistory(
            spec.motion_offsets_ms,
            lambda count: [_Kept(np.zeros_like(resized)) for _ in range(count)],
            longest_gap_ns,
        )

    def clear(self) -> None:
        """Forget all frames."""
        self._history.clear()
        if self._track is not None:
            self._track.reset()

    def append(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> Stack[Float32] | None:
        """Keep the frame and cut it and earlier ones where it tells."""
        row = self._history.append(stamp_ns)
        row.frame[:], row.limits = resized, limits
        place = self._place(resized, stamp_ns)
        stack = self._history.stack()
        if stack is None:
            return None
        crop = crop_inside(self._region, self._crop, resized, place, self._mask)
        return Stack(stack.stamp_ns, [self._cut(kept, crop, k) for k, kept in enumerate(stack.planes)], stack.late_ns)

    def _place(self, resized: Image, stamp_ns: int) -> Place | None:
        """Where the person is; every frame is asked, so that it does not depend on which ones are encoded."""
        if self._track is None or not isinstance(self._region, PersonRegion):
            return None
        return self._track.of(measure(resized, self._region, self._mask), stamp_ns)

    def _cut(self, kept: _Kept, crop: Crop, index: int) -> Float32:
        part = cut(kept.frame, crop, self._size, self._scratch)
        return self._normalise.plane(part, kept.limits, out=self._planes[index])
