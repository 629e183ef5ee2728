"""Corruptions of camera frames, in three severities each, applied to recorded frames before any preprocessing.

Corruptions of lighting and gain change the brightness of infrared and colour frames; in depth frames they remove
measurements (their value is 0) or falsify them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt

from kd_edge.artifact import Band
from kd_edge.packages import import_extra
from kd_edge.types import Clip, Float32, Image

VERSION = 1
"""Version of the corruptions; results of different versions are not comparable."""

Kind = Literal["clean", "dots", "fall_off", "saturation", "gain_step", "blur", "noise"]
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "clean")
SEVERITIES = (1, 2, 3)

DOTS = {"light": (0.005, 0.01, 0.02), "depth": (0.05, 0.15, 0.3)}
"""Light: share of pixels that a projector lights at full brightness, the same in every frame. Depth: share of pixels
without a measurement, different in every frame."""
FALL_OFF = (0.3, 0.6, 0.9)
"""Loss at the corners, growing with the squared distance from the centre: of light, or of random measurements."""
SATURATION = {"light": (1.5, 2.0, 3.0), "depth": (0.05, 0.15, 0.3)}
"""Light: exposure factor, clipped at the brightest value. Depth: share of measured pixels, the nearest, removed."""
GAIN_STEP = {"light": (1.2, 1.5, 2.0), "depth": (1.02, 1.05, 1.1)}
"""Factor on all values from the middle of the clip on."""
BLUR = (0.005, 0.01, 0.02)
"""Standard deviation of a Gaussian, relative to the frame's shorter side; depth averages only measured pixels."""
NOISE = {"light": (0.02, 0.05, 0.1), "depth": (2.0, 5.0, 10.0)}
"""Standard deviation of Gaussian noise, relative to the value range; for depth in units of ``axial_noise``."""


class Corruption(NamedTuple):
    """A kind of corruption with a severity.

    Attributes:
        kind: Kind of corruption; ``clean`` changes nothing.
        severity: 1 to 3; 0 for ``clean``.
    """

    kind: Kind
    severity: int


CLEAN = Corruption("clean", 0)
EVERY = (CLEAN, *(Corruption(kind, severity) for kind in KINDS for severity in SEVERITIES))


class Sensor(NamedTuple):
    """The sensor of the frames.

    Attributes:
        band: Spectral band, or depth.
        value_range: Lowest and highest raw value; depth is in millimetres, with 0 for no measurement.
    """

    band: Band
    value_range: tuple[float, float]

    @property
    def way(self) -> Literal["light", "depth"]:
        """Key of the parameters of each corruption."""
        return "depth" if self.band == "depth" else "light"


def axial_noise(depth_mm: Float32) -> Float32:
    """Standard deviation of a Kinect's depth: 1.2 + 1.9 (z - 0.4)^2 mm, z in metres (Nguyen et al., 3DIMPVT 2012)."""
    deviation: Float32 = np.float32(1.2) + np.float32(1.9) * (depth_mm / np.float32(1000) - np.float32(0.4)) ** 2
    return deviation


def corrupt(clip: Clip, corruption: Corruption, sensor: Sensor, sample: str) -> Clip:
    """Corrupt a clip as if a worse camera had recorded it.

    The random numbers depend only on the clip and the kind: every model and every severity gets the same pattern.

    Args:
        clip: (T, H, W) or (T, H, W, 3), uint8 or uint16.
        corruption: The corruption.
        sensor: The sensor that recorded the frames.
        sample: Name of the clip.

    Returns:
        A clip of the same shape, dtype and stamps; the clip itself for ``clean``.
    """
    if corruption.kind == "clean":
        return clip
    change, degree = _CHANGES[corruption.kind], corruption.severity - 1
    digest = hashlib.sha256(f"{sample}/{corruption.kind}/{VERSION}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    fixed = rng.random(clip.frames.shape[1:3], dtype=np.float32)  # (H, W), one for all frames
    frames = np.empty_like(clip.frames)
    for k, frame in enumerate(clip.frames):
        moment = _Moment(rng, fixed, is_late=2 * k >= len(clip))
        frames[k] = _stored(change(frame.astype(np.float32), degree, sensor, moment), frame)
    return replace(clip, frames=frames)


class _Moment(NamedTuple):
    """The random numbers of a frame, and its position in the clip.

    Attributes:
        rng: The clip's random number generator.
        fixed: (H, W) float32 in [0, 1), the same in every frame.
        is_late: Whether the frame is in the second half of the clip.
    """

    rng: np.random.Generator
    fixed: Float32
    is_late: bool

    @property
    def fresh(self) -> Float32:
        """(H, W) float32 in [0, 1), new for this frame."""
        return self.rng.random(self.fixed.shape, dtype=np.float32)


def _stored(values: Float32, frame: Image) -> Image:
    """Values in the frame's dtype, rounded and clipped."""
    largest = np.iinfo(frame.dtype).max
    return cast("Image", np.clip(np.rint(values), 0, largest).astype(frame.dtype))


def _as(mask: npt.NDArray[np.bool_], values: Float32) -> npt.NDArray[np.bool_]:
    """A mask (H, W) for values (H, W) or (H, W, 3)."""
    return mask if values.ndim == 2 else np.broadcast_to(mask[..., None], values.shape)


def _dots(values: Float32, degree: int, sensor: Sensor, moment: _Moment) -> Float32:
    share = DOTS[sensor.way][degree]
    if sensor.way == "depth":
        return np.where(moment.fresh < share, np.float32(0), values)
    return np.where(_as(moment.fixed < share, values), np.float32(sensor.value_range[1]), values)


def _fall_off(values: Float32, degree: int, sensor: Sensor, moment: _Moment) -> Float32:
    height, width = values.shape[:2]
    down, right = (
        np.linspace(-1, 1, n, dtype=np.float32) if n > 1 else np.zeros(1, np.float32) for n in (height, width)
    )
    lost = np.float32(FALL_OFF[degree] / 2) * (down[:, None] ** 2 + right[None, :] ** 2)  # (H, W)
    if sensor.way == "depth":
        return np.where(moment.fresh < lost, np.float32(0), values)
    low = np.float32(sensor.value_range[0])
    kept = 1 - lost if values.ndim == 2 else (1 - lost)[..., None]
    return cast("Float32", low + (values - low) * kept)


def _saturation(values: Float32, degree: int, sensor: Sensor, moment: _Moment) -> Float32:
    much = SATURATION[sensor.way][degree]
    if sensor.way == "depth":
        left, measured = values.copy(), np.flatnonzero(values)
        nearest = np.argsort(values.flat[measured], kind="stable")[: round(much * measured.size)]
        left.flat[measured[nearest]] = 0
        return left
    return _exposed(values, much, sensor)


def _gain_step(values: Float32, degree: int, sensor: Sensor, moment: _Moment) -> Float32:
    if not moment.is_late:
        return values
    factor = GAIN_STEP[sensor.way][degree]
    return values * np.float32(factor) if sensor.way == "depth" else _exposed(values, factor, sensor)


def _exposed(values: Float32, factor: float, sensor: Sensor) -> Float32:
    """More light: values about the lowest one, cut off at the highest."""
    low, high = sensor.value_range
    brighter: Float32 = np.float32(low) + (values - np.float32(low)) * np.float32(factor)
    return np.minimum(brighter, np.float32(high))


def _blur(values: Float32, degree: int, sensor: Sensor, moment: _Moment) -> Float32:
    deviation = BLUR[degree] * min(values.shape[:2])
    blurred = _blurred(values, deviation)
    if sensor.way == "depth":
        is_measured = values > 0
        weight = _blurred(is_measured.astype(np.float32), deviation)
        blurred = np.where(is_measured, blurred / np.maximum(weight, np.float32(1e-6)), np.float32(0))
    return blurred


def _blurred(values: Float32, deviation: float) -> Float32:
    cv2 = import_extra("cv2", "cpu")
    blurred: Float32 = cv2.GaussianBlur(values, (0, 0), deviation)
    return blurred


def _noise(values: Float32, degree: int, sensor: Sensor, moment: _Moment) -> Float32:
    drawn = moment.rng.standard_normal(values.shape, dtype=np.float32)
    much = np.float32(NOISE[sensor.way][degree])
    if sensor.way == "depth":
        return np.where(values > 0, np.maximum(values + much * axial_noise(values) * drawn, np.float32(1)), values)
    low, high = sensor.value_range
    return values + much * np.float32(high - low) * drawn


_CHANGES: dict[Kind, Callable[[Float32, int, Sensor, _Moment], Float32]] = {
    "dots": _dots,
    "fall_off": _fall_off,
    "saturation": _saturation,
    "gain_step": _gain_step,
    "blur": _blur,
    "noise": _noise,
}
