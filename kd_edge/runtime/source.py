"""One camera as the recogniser sees it: format checks, preprocessing state, feature ring."""

from __future__ import annotations

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.errors import CameraError
from kd_edge.preprocess import Normalise, WindowLimits, centre_crop, plane, resize, resize_buffers
from kd_edge.runtime.segments import FeatureRing, MotionHistory
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
        self._history = MotionHistory(spec.motion_offsets_ms, shape, spacing_ns // 2) if spec.has_motion else None
        self._plane: Float32 = np.zeros(shape, dtype=np.float32)
        self._planes: list[Float32] = [self._plane]
        self._shape: tuple[int, ...] = ()
        self._buffers: list[Image] = []
        self.ring = FeatureRing(manifest.segments, spacing_ns, manifest.feature_size)
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
        if self._history is not None:
            self._history.clear()
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
        self.stamp_ns = stamp_ns
        self.frames += 1
        resized = resize(frame, self._spec.resize_px, self._buffers)
        limits = self._limits.of(resized, stamp_ns)
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

    def fill(self, out: Float32) -> None:
        """Write the network input of the frame observed last to ``out``, (C, S, S) float32."""
        self._normalise.stack(self._planes, out)
