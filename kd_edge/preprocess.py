"""Convert raw frames (uint8 or uint16, one or three channels) to network input, in training and on the robot alike.

Steps: ``resize`` (same dtype; the frame cache stores this result) -> intensity ``window`` to [0, 1], with limits that
are fixed or computed from the resized frame -> crop of the frame or of the region around the person -> motion stack or
replication -> mean and standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.crop import (
    LEAST_FOCAL,
    MOST_FOCAL,
    WHOLE,
    AnyRegion,
    Crop,
    ForegroundRegion,
    FrameRegion,
    PersonRegion,
    Region,
    crop_pixels,
    foreground_square,
    opencv,
)
from kd_edge.crop import centre_crop as centre_crop
from kd_edge.errors import ConfigError
from kd_edge.person import NOWHERE, Place, clip_places, measure, person_square
from kd_edge.resizing import Holes, resize
from kd_edge.sampling import motion_indices
from kd_edge.types import Clip, Float32, Image, Int64
from kd_edge.window import FixedWindow, RelativeWindow, Window, clip_limits, own_limits, windowed

_BLACK, _WHITE = np.float32(0), np.float32(1)
_EIGHT_BIT = np.arange(256, dtype=np.uint8)


class Preprocess(BaseModel):
    """Everything between a camera's frame and the network, as stored in recipes and artifacts.

    Attributes:
        channels: Channels of the camera frame: 1 (infrared, depth) or 3 (R, G, B).
        resize_px: Length of the frame's shorter side after resizing.
        input_px: Side S of the square network input; evaluation uses the centre crop.
        holes: How averaging while resizing treats pixels without a measurement (raw value 0): counted as 0
            (``averaged``), or left out (``left_out``). Depth needs ``left_out``, as a wall with a hole is not nearer.
            Holes that remain after resizing are interpolated as 0 when a crop is resampled.
        window: Intensity window that maps raw values to [0, 1].
        region: The part of a frame to crop from: the whole frame (``frame``), the square around the foreground
            (``foreground``), or a square of fixed physical size around the person (``person``). Evaluation uses the
            whole square; a motion stack uses the square of its newest frame for all frames.
        motion_offsets_ms: Time offsets into the past of the frames of the input; ``[0]`` is the frame alone, ``[0, 70,
            140]`` a motion stack: three channels from a one-channel camera, nine from a colour camera.
        replicate: Number of copies of a single channel; the papers use 3.
        mean: Mean per input channel, in [0, 1] units; a single value applies to all channels.
        std: Standard deviation per input channel, in [0, 1] units; a single value applies to all channels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    channels: Literal[1, 3] = 1
    resize_px: int = Field(256, ge=8, le=2048)
    input_px: int = Field(224, ge=8, le=2048)
    holes: Holes = "averaged"
    window: Window = FixedWindow()
    region: Region = FrameRegion()
    motion_offsets_ms: tuple[Annotated[int, Field(ge=0, le=2000)], ...] = (0,)
    replicate: Literal[1, 3] = 1
    mean: tuple[float, ...] = (0.5,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (0.25,)

    @model_validator(mode="after")
    def _consistent(self) -> Preprocess:
        if self.input_px > self.resize_px:
            raise ValueError(f"input_px ({self.input_px}) must not exceed resize_px ({self.resize_px})")
        if not self.motion_offsets_ms or self.motion_offsets_ms[0] != 0:
            raise ValueError("motion_offsets_ms must start with 0, the newest frame")
        if list(self.motion_offsets_ms) != sorted(set(self.motion_offsets_ms)):
            raise ValueError("motion_offsets_ms must increase")
        if self.channels == 3 and not isinstance(self.region, FrameRegion):
            raise ValueError(f"a {self.region.kind} region is found by raw value and needs one-channel frames")
        if self.channels == 3 and isinstance(self.window, RelativeWindow):
            raise ValueError("a relative window uses raw values and needs one-channel frames")
        if self.channels == 3 and self.holes == "left_out":
            raise ValueError("holes = left_out needs one-channel frames: a black pixel of a colour camera is no hole")
        if self.channels == 3 and self.replicate != 1:
            raise ValueError("replicate is for one-channel frames")
        if self.has_motion and self.replicate != 1:
            raise ValueError("use either motion_offsets_ms or replicate")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.input_channels):
                count = "1 value" if self.input_channels == 1 else f"1 or {self.input_channels} values"
                raise ValueError(f"{name} needs {count}, as many as input channels, got {len(values)}: see channels")
        return self

    @property
    def focal(self) -> float | None:
        """Focal length as a share of the frame's width, used to convert distances to sizes; None if not used."""
        return self.region.focal if isinstance(self.region, PersonRegion) else None

    def seen_through(self, focal: float | None) -> Preprocess:
        """Adapt this preprocessing to a camera with another lens, so that a person looks the same through both.

        Args:
            focal: Focal length as a share of the frame's width; None (unknown) keeps the original one.

        Raises:
            ConfigError: The focal length is out of range.
        """
        if focal is None or not isinstance(self.region, PersonRegion) or self.region.focal is None:
            return self
        if not LEAST_FOCAL < focal <= MOST_FOCAL:
            raise ConfigError(
                f"a focal length of {focal:g} of the frame's width",
                f"more than {LEAST_FOCAL:g}, at most {MOST_FOCAL:g} (0.89 for a Kinect)",
                "correct it: its value in pixels divided by the frame's width in pixels",
            )
        return self.model_copy(update={"region": self.region.model_copy(update={"focal": focal})})

    @property
    def has_motion(self) -> bool:
        """Whether the input is a motion stack."""
        return len(self.motion_offsets_ms) > 1

    @property
    def input_channels(self) -> int:
        """Number C of network input channels."""
        return self.channels * len(self.motion_offsets_ms) * self.replicate


def evaluation_crop(height: int, width: int, spec: Preprocess) -> Crop:
    """Return the crop of a frame's region used in evaluation and on the robot; see ``crop_inside``."""
    return centre_crop(height, width, spec.input_px) if isinstance(spec.region, FrameRegion) else WHOLE


def plane(
    resized: Image,
    limits: tuple[float, float],
    crop: Crop,
    size: int,
    out: Float32 | None = None,
    scratch: Image | None = None,
) -> Float32:
    """Crop, resample to (size, size), mirror and window one resized frame.

    Args:
        resized: (h, w) or (h, w, 3), uint8 or uint16.
        limits: Raw values that become 0 and 1.
        crop: Part of the frame; resampled bilinearly unless its side is ``size`` pixels already.
        size: Side S of the result.
        out: Optional (S, S) or (S, S, 3) float32 to write to.
        scratch: Optional (S, S) or (S, S, 3) buffer of the frame's dtype for the resampled part.

    Returns:
        float32 in [0, 1], (S, S) or (S, S, 3).
    """
    return windowed(cut(resized, crop, size, scratch), limits, out)


def cut(resized: Image, crop: Crop, size: int, scratch: Image | None = None) -> Image:
    """Cut the raw pixels of a plane, (size, size) or (size, size, 3); see ``plane``. A view unless resampled."""
    if crop.is_free:
        return _cut_freely(resized, crop, size, scratch)
    rows, columns = crop_pixels(resized.shape, crop)
    part = resized[rows, columns]
    if part.shape[:2] != (size, size):
        cv2 = opencv()
        part = cv2.resize(part, (size, size), dst=scratch, interpolation=cv2.INTER_LINEAR)
    return part[:, ::-1] if crop.flip else part


def _cut_freely(resized: Image, crop: Crop, size: int, scratch: Image | None) -> Image:
    """Cut a crop that may start at a fraction of a pixel, be rotated and extend beyond the frame, padded with 0."""
    cv2 = opencv()
    height, width = resized.shape[:2]
    turn = math.radians(crop.turn_degrees)
    # Steps across and down the crop, in pixels of the frame per pixel of the result.
    across = (-1 if crop.flip else 1) * crop.width * width / size
    down = crop.height * height / size
    matrix = np.array(
        [
            [math.cos(turn) * across, -math.sin(turn) * down, (crop.left + crop.width / 2) * width - 0.5],
            [math.sin(turn) * across, math.cos(turn) * down, (crop.top + crop.height / 2) * height - 0.5],
        ]
    )
    matrix[:, 2] -= matrix[:, :2].sum(axis=1) * (size - 1) / 2  # from the result's centre to its first pixel
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut_out: Image = cv2.warpAffine(resized, matrix, (size, size), dst=scratch, flags=flags)
    return cut_out


def crop_inside(
    region: AnyRegion, crop: Crop, resized: Image, place: Place | None = None, mask: Image | None = None
) -> Crop:
    """Convert a crop of a frame's region to a crop of the frame.

    Args:
        region: The region of the preprocessing.
        crop: Crop in fractions of the region, which is square unless it is the whole frame.
        resized: The frame, (h, w) or (h, w, 3).
        place: Smoothed place of the person; required for a person region.
        mask: Optional (h, w) uint8 work buffer.
    """
    if isinstance(region, FrameRegion):
        return crop
    if isinstance(region, ForegroundRegion):
        return crop.inside(foreground_square(resized, region, mask))
    return crop.inside(person_square(place or Place(*NOWHERE), region, resized.shape))


class Normalise:
    """Convert raw values to network channels: window, stack or replicate, subtract the mean, divide by the deviation.

    Operations that are the same for all channels are applied to each frame once, before stacking.
    """

    def __init__(self, spec: Preprocess) -> None:
        channels = spec.input_channels
        mean = np.asarray(spec.mean * channels if len(spec.mean) == 1 else spec.mean, dtype=np.float32)
        std = np.asarray(spec.std * channels if len(spec.std) == 1 else spec.std, dtype=np.float32)
        self._gain = [_WHITE / s for s in std]
        self._shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self._replicate = spec.replicate
        self._is_uniform = len(spec.mean) == len(spec.std) == 1
        self._farthest = spec.window.high if isinstance(spec.window, RelativeWindow) else None
        self._too_far = np.empty(0, dtype=np.bool_)
        self._limits: tuple[float, float] | None = None  # limits that the table was computed with
        self._table = np.empty(256, dtype=np.float32)

    def plane(self, part: Image, limits: tuple[float, float], out: Float32 | None = None) -> Float32:
        """Compute one frame's plane for ``stack``.

        Args:
            part: (S, S) or (S, S, 3) from ``cut``.
            limits: Raw values that become 0 and 1.
            out: Optional contiguous float32 of the same shape to write to.
        """
        if part.dtype != np.uint8:
            return self._values(part, limits, out)
        if limits != self._limits:  # for 8 bits, only the 256 possible values are computed
            self._table = self._values(_EIGHT_BIT, limits, self._table)
            self._limits = limits
        looked_up: Float32 = opencv().LUT(part, self._table, dst=out)
        return looked_up

    def _values(self, raw: npt.NDArray[Any], limits: tuple[float, float], out: Float32 | None) -> Float32:
        values = windowed(raw, limits, out)
        if self._farthest is not None:
            if self._too_far.shape != raw.shape:
                self._too_far = np.empty(raw.shape, dtype=np.bool_)
            np.copyto(values, _BLACK, where=np.greater(raw, self._farthest, out=self._too_far))
        if self._is_uniform:
            np.multiply(values, self._gain[0], out=values)
            np.add(values, self._shift[0], out=values)
        return values

    def stack(self, planes: Sequence[Float32], out: Float32) -> Float32:
        """Write planes from ``plane``, newest first, to ``out``.

        Args:
            planes: One per motion offset, (S, S) or (S, S, 3); a single (S, S) is replicated according to the spec.
            out: (C, S, S) float32; colour planes fill three channels each, R, G, B.
        """
        if not self._is_uniform:
            return self.stack_windowed(planes, out)
        for c, values in enumerate(self._channels(planes)):
            out[c] = values
        return out

    def stack_windowed(self, planes: Sequence[Float32], out: Float32) -> Float32:
        """``stack`` for windowed planes in [0, 1], before mean and standard deviation are applied."""
        for c, values in enumerate(self._channels(planes)):
            np.multiply(values, self._gain[c], out=out[c])
            np.add(out[c], self._shift[c], out=out[c])
        return out

    def _channels(self, planes: Sequence[Float32]) -> list[Float32]:
        if planes[0].ndim == 3:
            return [plane[:, :, c] for plane in planes for c in range(3)]
        return [*planes] * self._replicate


def clip_input(
    frames: npt.NDArray[Any],
    limits: npt.NDArray[np.float32],
    indices: npt.NDArray[np.int64],
    crop: Crop,
    spec: Preprocess,
    out: Float32 | None = None,
    places: Float32 | None = None,
) -> Float32:
    """Compute the network input of a recorded clip from its resized frames.

    Args:
        frames: (T, h, w) or (T, h, w, 3), uint8 or uint16, as ``resize`` returns them.
        limits: (T, 2) float32 from ``clip_limits``.
        indices: (S, M) int64: the frames of the M motion offsets of each of S segments (M = 1 without motion).
        crop: Crop in fractions of the region; the same for every segment.
        spec: The preprocessing.
        out: Optional (S, C, input_px, input_px) float32.
        places: (T, 3) float32 from ``clip_places``; required for a person region.

    Returns:
        (S, C, input_px, input_px) float32.
    """
    size = spec.input_px
    if out is None:
        out = np.empty((len(indices), spec.input_channels, size, size), dtype=np.float32)
    normalise = Normalise(spec)
    planes: dict[int, Float32] = {}  # motion stacks overlap: with a whole-frame crop, each plane is computed once
    for segment, row in enumerate(indices.tolist()):
        place = None if places is None else Place(*places[row[0]].tolist())
        part = crop_inside(spec.region, crop, frames[row[0]], place)
        if not (spec.has_motion and isinstance(spec.region, FrameRegion)):
            planes.clear()
        for i in row:
            if i not in planes:
                planes[i] = normalise.plane(cut(frames[i], part, size), (float(limits[i, 0]), float(limits[i, 1])))
        normalise.stack([planes[i] for i in row], out[segment])
    return out


def recorded_input(clip: Clip, at: Int64, spec: Preprocess) -> Float32:
    """Compute the network input of chosen frames of a decoded clip, exactly as in a stream that starts with it.

    Args:
        clip: Decoded frames, before any resizing.
        at: (S,) int64, the chosen frames.
        spec: The preprocessing; the evaluation crop is used.

    Returns:
        (S, C, input_px, input_px) float32.
    """
    resized = np.stack([resize(frame, spec.resize_px, spec.holes) for frame in clip.frames])
    own = np.array([own_limits(frame, spec.window) for frame in resized], dtype=np.float32)
    limits = clip_limits(own, clip.stamps_ns, spec.window)
    places = None
    if isinstance(spec.region, PersonRegion):
        own_places = np.array([measure(frame, spec.region) for frame in resized], dtype=np.float32)
        places = clip_places(own_places, clip.stamps_ns, spec.region)
    indices = motion_indices(clip.stamps_ns, at, spec.motion_offsets_ms)
    crop = evaluation_crop(resized.shape[1], resized.shape[2], spec)
    return clip_input(resized, limits, indices, crop, spec, places=places)
