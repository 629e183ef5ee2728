"""One camera as the recogniser sees it: format checks, preprocessing state, feature ring."""

from __future__ import annotations

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.crop import FrameRegion
from kd_edge.engines import Binding
from kd_edge.errors import CameraError
from kd_edge.preprocess import Normalise, WindowLimits, centre_crop, plane, resize, resize_buffers
from kd_edge.runtime.memory import FeatureRing, MotionHistory
from kd_edge.runtime.recurrence import Recurrence
from kd_edge.runtime.region import RegionPlanes
from kd_edge.types import Float32, Image

DTYPES = {"uint8": np.dtype(np.uint8), "uint16": np.dtype(np.uint16)}
"""Compared with a frame's dtype ten times faster than the names are."""


def check_frame(frame: Image, manifest: Manifest, source: str) -> None:
    """Refuse a frame the model was not trained for.

    Raises:
        CameraError: Not an array, or another dtype or number of channels.
    """
    channels = manifest.preprocess.channels
    if isinstance(frame, np.ndarray):
        right_shape = frame.ndim == 2 if channels == 1 else frame.ndim == 3 and frame.shape[2] == 3
        if right_shape and frame.dtype == DTYPES[manifest.dtype] and frame.size:
            return
        found = f"{frame.dtype.name} {frame.shape}"
    else:
        found = type(frame).__name__
    shape = "(H, W)" if channels == 1 else "(H, W, 3)"
    raise CameraError(
        f"{source} delivers {found}",
        f"{manifest.dtype} {shape} frames of {manifest.band} for '{manifest.name}'",
        "choose the camera's pixel format (Y16 for uint16, GREY for uint8) or a model for this camera",
    )


class SourceState:
    """Everything remembered of one source; its size is fixed when its frames' size is known."""

    def __init__(self, manifest: Manifest) -> None:
        spec = manifest.preprocess
        spacing_ns = manifest.spacing_ns
        self._spec = spec
        self._limits = WindowLimits(spec.window)
        self._normalise = Normalise(spec)
        size = spec.input_px
        shape = (size, size, 3) if spec.channels == 3 else (size, size)
        self._whole = isinstance(spec.region, FrameRegion)
        stacked = spec.has_motion and self._whole
        self._history = MotionHistory(spec.motion_offsets_ms, shape, spacing_ns // 2) if stacked else None
        self._plane: Float32 = np.zeros(shape, dtype=np.float32)
        self._planes: list[Float32] = [self._plane]
        self._shape: tuple[int, ...] = ()
        self._buffers: list[Image] = []
        self._region: RegionPlanes | None = None  # made with the first frame, unless the whole frame is the region
        self._longest_gap_ns = spacing_ns // 2
        self.ring = FeatureRing(manifest.segments, spacing_ns, manifest.feature_size)
        self.recurrence = Recurrence(manifest) if manifest.states else None
        self.stamp_ns: int | None = None
        self.frames = 0
        self.cause = "start"
        """Why the window is not full, for the reason of a ``warming`` prediction."""
        self.motion_error_ns = 0
        """How far the newest stack's planes lie from their moments."""

    def restart(self, cause: str) -> None:
        """Forget all frames; stamps must still increase."""
        self._limits.reset()
        self.ring.clear()
        if self.recurrence is not None:
            self.recurrence.reset()
        if self._history is not None:
            self._history.clear()
        if self._region is not None:
            self._region.clear()
        self.cause = cause

    def observe(self, frame: Image, stamp_ns: int) -> bool:
        """Take in a frame: intensity limits and motion history.

        Returns:
            Whether its network input can be made; False while the motion history is too short.
        """
        if frame.shape != self._shape:
            if self._shape:
                old, new = (f"{s[1]}x{s[0]}" for s in (self._shape, frame.shape))
                self.restart(f"frame size changed from {old} to {new}")
            self._shape = frame.shape
            self._buffers = resize_buffers(frame, self._spec.resize_px)
            self._region = None
        self.stamp_ns = stamp_ns
        self.frames += 1
        resized = resize(frame, self._spec.resize_px, self._buffers)
        limits = self._limits.of(resized, stamp_ns)
        if not self._whole:
            return self._observe_region(resized, limits, stamp_ns)
        size = self._spec.input_px
        crop = centre_crop(resized.shape[0], resized.shape[1], size)
        if self._history is None:
            plane(resized, limits, crop, size, out=self._plane)
            return True
        plane(resized, limits, crop, size, out=self._history.append(stamp_ns))
        stack = self._history.planes()
        if stack is None:
            return False
        self._planes, error_ns = stack
        self.motion_error_ns = max(0, error_ns - self._history.tolerance_ns)
        return True

    def _observe_region(self, resized: Image, limits: tuple[float, float], stamp_ns: int) -> bool:
        """Likewise, where the frame itself decides which part of it is seen."""
        if self._region is None:
            self._region = RegionPlanes(self._spec, resized, self._longest_gap_ns)
        stack = self._region.append(resized, limits, stamp_ns)
        if stack is None:
            return False
        self._planes, self.motion_error_ns = stack
        return True

    def fill(self, out: Float32) -> None:
        """Write the network input of the frame observed last to ``out``, (C, S, S) float32."""
        self._normalise.stack(self._planes, out)

    def is_due(self, stamp_ns: int) -> bool:
        """Whether the frame makes a step: all do, unless the model has states; call it once for every frame."""
        return self.recurrence is None or self.recurrence.is_due(stamp_ns)

    def begin(self, stamp_ns: int, binding: Binding, row: int) -> int | None:
        """Write the step's inputs to row ``row`` of a binding; returns what ``FeatureRing.gather`` does."""
        self.fill(binding.frame[row])
        if self.recurrence is not None and not self.recurrence.begin(stamp_ns, binding.states_in, row):
            self.ring.clear()  # features from before a gap remember what the states no longer do
            self.cause = "gap"
        return self.ring.gather(stamp_ns, binding.past[row])

    def end(self, stamp_ns: int, binding: Binding, row: int) -> None:
        """Remember what the step put out."""
        self.ring.append(stamp_ns, binding.feature[row])
        if self.recurrence is not None:
            self.recurrence.end(binding.states_out, row)
