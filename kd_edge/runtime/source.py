"""State of one camera in the recogniser: format checks, planes of its frames, window of features, steps."""

from __future__ import annotations

from collections import deque

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.engines import Binding
from kd_edge.errors import CameraError
from kd_edge.health import FINE, LOOK_NS, Familiarity, Finding, PictureHealth
from kd_edge.preprocess import Normalise, Preprocess
from kd_edge.resizing import Resizer
from kd_edge.runtime.memory import GAP, FeatureRing, Stack
from kd_edge.runtime.phases import PhaseMean
from kd_edge.runtime.rate import RateMeter
from kd_edge.runtime.recurrence import steps_of
from kd_edge.runtime.region import planes_of
from kd_edge.types import Cause, Float32, Frame, Image, Reason
from kd_edge.window import WindowLimits

DTYPES = {"uint8": np.dtype(np.uint8), "uint16": np.dtype(np.uint16)}
"""Comparing dtypes is ten times faster than comparing their names."""


RISING_FRAMES = 3
"""This many older frames in a row with rising stamps mean a clock that stepped back; fewer may be out of order."""
MAX_ASPECT = 8
"""Largest ratio of a frame's sides: its resized copy has the same ratio."""
MAX_SIDE_PX = 8192
MAX_ENLARGED = 16
"""Largest factor by which a frame is enlarged to the model's size: beyond, it shows nothing."""


def check_frame(frame: Image, manifest: Manifest, source: str) -> None:
    """Refuse a frame that does not suit the model.

    Raises:
        CameraError: Not an array, wrong dtype or number of channels, or an implausible size.
    """
    channels = manifest.preprocess.channels
    if isinstance(frame, np.ndarray):
        right_shape = frame.ndim == 2 if channels == 1 else frame.ndim == 3 and frame.shape[2] == 3
        if right_shape and frame.dtype == DTYPES[manifest.dtype] and frame.size:
            _check_size(frame, manifest, source)
            return
        name = frame.dtype.name if frame.dtype.isnative else f"{frame.dtype.name} in non-native byte order"
        found = f"{name} {frame.shape}"
    else:
        found = type(frame).__name__
    shape = "(H, W)" if channels == 1 else "(H, W, 3)"
    raise CameraError(
        f"{source} delivers {found}",
        f"{manifest.dtype} {shape} frames of {manifest.band} for '{manifest.name}'",
        f"{_conversion(frame, manifest)}choose the camera's pixel format (Y16 for uint16, GREY for uint8) or a model "
        "for this camera",
    )


def _conversion(frame: object, manifest: Manifest) -> str:
    """How to convert a frame that is wrong only in its form, not its values; else empty."""
    if isinstance(frame, Frame):
        return "push its image and captured_ns, or "
    if isinstance(frame, (list, tuple)):
        return f"use np.array(frame, np.{manifest.dtype}), or "
    if not isinstance(frame, np.ndarray):
        return ""
    wanted, native = DTYPES[manifest.dtype], frame.dtype.newbyteorder("=")
    is_form = native == wanted or (native.kind in "iu" and native not in DTYPES.values())
    if not is_form:  # only the caller knows the meaning of its values
        return ""
    steps = []
    if frame.ndim == 3 and manifest.preprocess.channels == 1 and frame.shape[2] == 1:
        steps.append("frame[..., 0]")
    if frame.ndim == 3 and manifest.preprocess.channels == 3 and frame.shape[2] == 4:
        steps.append("frame[..., :3]")
    if frame.dtype != wanted:
        steps.append(f".astype(np.{manifest.dtype})")
    return f"use {' and '.join(steps)}, or " if steps else ""


def _check_size(frame: Image, manifest: Manifest, source: str) -> None:
    height, width = frame.shape[:2]
    longer, shorter = (height, width) if height > width else (width, height)
    wanted_px = manifest.preprocess.resize_px
    least_px = max(2, -(-wanted_px // MAX_ENLARGED))
    if longer > MAX_SIDE_PX or longer > MAX_ASPECT * shorter or shorter < least_px:
        raise CameraError(
            f"{source} delivers frames of {width}x{height}",
            f"at least {least_px} and at most {MAX_SIDE_PX} pixels a side, neither side more than {MAX_ASPECT} times "
            f"the other ('{manifest.name}' resizes the shorter one to {wanted_px})",
            "check the camera's width, height and pixel format, or crop the frame",
        )


class SourceState:
    """State of one source; of fixed size once the size of its frames is known.

    Args:
        manifest: Manifest of the model.
        smooth_ns: Time over which windows are averaged; 0 uses the newest one alone.
        focal: Focal length of its camera, as a share of the frame's width; None: as the model assumes.

    Attributes:
        stamp_ns: When the newest frame was captured; None before the first.
        frames: Number of accepted frames.
        stack: Network input of the newest frame; None while the motion history is too short.
        focal: Focal length by which frames are cropped; None if the crop does not depend on it.
    """

    def __init__(self, manifest: Manifest, smooth_ns: int = 0, focal: float | None = None) -> None:
        self._manifest = manifest
        self._spec = manifest.preprocess.seen_through(focal)
        self.focal = self._spec.focal
        self._limits = WindowLimits(manifest.preprocess.window)
        self._normalise = Normalise(manifest.preprocess)
        self._window = FeatureRing(manifest.segments, manifest.spacing_ns, manifest.feature_size)
        self._phases = PhaseMean(manifest, smooth_ns)
        self._steps = steps_of(manifest)
        self._rate = RateMeter()
        hold_ns = seen_ns(manifest) + smooth_ns
        self._health = None if manifest.health is None else PictureHealth(manifest.health, hold_ns)
        self._sized: _Sized | None = None
        self._scored: deque[tuple[int, float]] = deque()  # (stamp, score) of the averaged windows
        self._smooth_ns = smooth_ns
        self.stamp_ns: int | None = None
        self._older_ns: list[int] = []
        self.frames = 0
        self.stack: Stack[Float32] | None = None

    @property
    def cause(self) -> Cause:
        """Why the window is not full: the reason of a ``warming`` prediction."""
        return self._window.cause

    @property
    def is_due(self) -> bool:
        """Whether the newest frame can be encoded and is due for a step; always due unless the model has states."""
        return self.stack is not None and self._steps.is_due

    @property
    def fps(self) -> float | None:
        """Frame rate; None until it can be estimated."""
        return self._rate.fps

    @property
    def finding(self) -> Finding:
        """Quality of the pictures in the window; fine if the manifest has no limits."""
        return FINE if self._health is None else self._health.finding

    def knows(self, frame: Image) -> bool:
        """Whether a frame has the form of the previous, checked one."""
        sized = self._sized
        return (
            sized is not None
            and type(frame) is np.ndarray
            and frame.shape == sized.shape
            and frame.dtype == sized.dtype
        )

    def restart(self, cause: Cause) -> None:
        """Forget all frames; the next one may have any stamp."""
        self.stamp_ns = None
        self._scored.clear()
        self._older_ns.clear()
        self._rate.reset()
        self._limits.reset()
        if self._health is not None:
            self._health.reset()
        self._window.clear(cause)
        self._phases.clear()
        self._steps.reset()
        if self._sized is not None:
            self._sized.planes.clear()
        self.stack = None

    def steps_back(self, stamp_ns: int) -> bool:
        """Whether a frame not newer than the newest one indicates a clock that stepped back."""
        if stamp_ns == self.stamp_ns:  # delivered twice
            return False
        if self._older_ns and stamp_ns <= self._older_ns[-1]:
            self._older_ns.clear()
        self._older_ns.append(stamp_ns)
        return len(self._older_ns) >= RISING_FRAMES

    def observe(self, frame: Image, stamp_ns: int) -> None:
        """Accept a frame, captured later than all before: update rate, intensity limits and planes."""
        sized = self._sized_for(frame)
        self.stamp_ns = stamp_ns
        self._older_ns.clear()
        self.frames += 1
        self._rate.see(stamp_ns)
        self._steps.see(stamp_ns)
        resized = sized.resized(frame)
        if self._health is not None:
            self._health.see(resized, stamp_ns)
        self.stack = sized.planes.append(resized, self._limits.of(resized, stamp_ns), stamp_ns)

    def begin(self, binding: Binding, row: int) -> int | None:
        """Write the inputs of the newest frame's step to row ``row`` of a binding.

        Returns:
            Largest distance of a feature from its segment's nominal time, in ns (see ``FeatureRing.gather``); None
            while the window is not full.
        """
        stack = self._encodable()
        self._normalise.stack(stack.planes, binding.frame[row])
        if not self._steps.begin(binding.states_in, row):
            self._window.clear(GAP)  # older features depend on states that were reset
        error_ns = self._window.gather(stack.stamp_ns, binding.past[row])
        if error_ns is None:
            self._phases.clear()  # do not average windows across a gap
        return error_ns

    def answer(self, binding: Binding, row: int) -> list[float]:
        """The K logits of a finished step with a full window, averaged with those of earlier phases."""
        return self._phases.add(self._encodable().stamp_ns, binding.logits[row])

    def end(self, binding: Binding, row: int) -> None:
        """Store the outputs of the step."""
        self._window.append(self._encodable().stamp_ns, binding.feature[row])
        self._steps.end(binding.states_out, row)

    def anomaly(self, familiarity: Familiarity, binding: Binding, row: int) -> float:
        """Anomaly score of a finished step: the largest over the averaged windows.

        A window changes slowly, so it is scored only when its newest picture is examined, or as often if none is, at
        the latest after two such intervals. A score holds until the next one.
        """
        stamp_ns, scored = self._encodable().stamp_ns, self._scored
        age_ns = stamp_ns - scored[-1][0] if scored else 2 * LOOK_NS
        is_looked_at = age_ns >= LOOK_NS if self._health is None else self._health.looked_ns == stamp_ns
        if is_looked_at or age_ns >= 2 * LOOK_NS:
            scored.append((stamp_ns, familiarity.score(binding.past[row], binding.feature[row])))
        while len(scored) > 1 and scored[1][0] <= stamp_ns - self._smooth_ns:
            scored.popleft()
        return max(score for _, score in scored)

    def _encodable(self) -> Stack[Float32]:
        if self.stack is None:
            raise RuntimeError("a step without a frame that can be encoded: check is_due first")
        return self.stack

    def _sized_for(self, frame: Image) -> _Sized:
        """Buffers for frames of this size; a change of size restarts the source."""
        if self._sized is not None:
            if self._sized.shape == frame.shape:
                return self._sized
            old, new = (f"{shape[1]}x{shape[0]}" for shape in (self._sized.shape, frame.shape))
            self.restart(Cause(Reason.SIZE_CHANGE, f"frame size changed from {old} to {new}"))
        self._sized = _Sized(self._spec, frame, longest_gap_ns=self._manifest.spacing_ns)
        return self._sized


def seen_ns(manifest: Manifest) -> int:
    """Time span of the pictures of one window: its length plus the motion stack of its oldest segment."""
    return round(manifest.clip_seconds * 1e9) + manifest.preprocess.motion_offsets_ms[-1] * 1_000_000


class _Sized:
    """Buffers for frames of one size: for resizing, and for their planes."""

    def __init__(self, spec: Preprocess, frame: Image, longest_gap_ns: int) -> None:
        self.shape, self.dtype = frame.shape, frame.dtype
        self.resized = Resizer(frame, spec.resize_px, spec.holes)
        self.planes = planes_of(spec, self.resized(frame), longest_gap_ns)
