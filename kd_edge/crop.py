"""The part of a resized frame that the network sees: fractional crops, and squares around the person in view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.packages import import_extra
from kd_edge.types import Image

if TYPE_CHECKING:
    from typing_extensions import Self


@cache
def opencv() -> ModuleType:
    """Return OpenCV, imported once, because a stream needs it several times per frame."""
    return import_extra("cv2", "cpu")


_HIT = 255  # OpenCV marks a pixel inside the range with this
LEAST_FOCAL, MOST_FOCAL = 0.1, 20.0
"""Smallest and largest focal length as a share of the frame's width: fields of view of 157 and 2.9 degrees."""


def focal_of_view(hfov_deg: float) -> float:
    """Convert a horizontal field of view in degrees to a focal length as a share of the frame's width (pinhole)."""
    return 0.5 / math.tan(math.radians(hfov_deg) / 2)


def view_of_focal(focal: float) -> float:
    """Convert a focal length to a horizontal field of view in degrees; the inverse of ``focal_of_view``."""
    return 2 * math.degrees(math.atan(0.5 / focal))


class FrameRegion(BaseModel):
    """The whole frame; evaluation uses its centre."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["frame"] = "frame"


class RawRange(BaseModel):
    """Range of raw values from ``low`` to ``high``, both inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: int = Field(1, ge=0, le=65535)
    high: int = Field(65535, ge=0, le=65535)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


class ForegroundRegion(RawRange):
    """The square around the foreground of each frame, which is separated from the background by raw value.

    For depth in millimetres, ``low`` and ``high`` are the near and far limits of the space in which a person acts, and
    0 (no measurement) lies outside; for thermal infrared they are the range of warm values.

    Attributes:
        low: Smallest raw value of the foreground.
        high: Largest raw value of the foreground.
        margin: Margin added at each end of the bounding box's longer side, as a share of that side.
        minimum_pixels: Rows and columns of the resized frame with fewer foreground pixels are ignored, so that single
            noisy pixels cannot widen the box.
        minimum_share: A frame with a smaller share of foreground pixels counts as empty; its central square is used.
    """

    kind: Literal["foreground"] = "foreground"
    margin: float = Field(0.1, ge=0, le=1)
    minimum_pixels: int = Field(3, ge=1)
    minimum_share: float = Field(0.01, ge=0, le=1)


class PersonRegion(RawRange):
    """A square of fixed physical size around the person's centre, smoothed over time.

    The person has the same size in it at any distance. Centre and scale are measured in every frame and smoothed by
    time stamp, in recordings and live alike. Where the square extends beyond the frame, it is filled with raw value 0.

    Attributes:
        low: Smallest raw value of a person; 0 (no measurement) lies outside.
        high: Largest raw value of a person.
        side_m: Side of the square in metres.
        focal: Focal length of a depth camera as a share of the frame's width (0.89 for a Kinect), which converts the
            distance to a scale. None derives the scale from the person's height in the frame. Live, the camera's own
            focal length is used if known.
        metres: Metres per raw unit of depth; 0.001 for millimetres.
        height_m: Assumed height of the person in metres, used without ``focal``.
        time_constant_ms: Time constant of the first-order low-pass on centre and scale; 0 follows every frame.
        minimum_share: A frame with a smaller share of foreground pixels counts as empty and keeps the last place;
            before a person has been seen, the frame's central square is used.
    """

    kind: Literal["person"] = "person"
    low: int = Field(1, ge=1, le=65535)
    side_m: float = Field(2.2, gt=0, le=100)
    focal: float | None = Field(None, gt=LEAST_FOCAL, le=MOST_FOCAL)
    metres: float = Field(0.001, gt=0, le=10)
    height_m: float = Field(1.7, gt=0, le=10)
    time_constant_ms: float = Field(500.0, ge=0)
    minimum_share: float = Field(0.005, ge=0, le=1)


AnyRegion = FrameRegion | ForegroundRegion | PersonRegion
Region = Annotated[AnyRegion, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop of the resized frame as fractions of its height and width, with an optional mirror.

    Fractions let paired modalities of different sizes share one crop.

    Attributes:
        top: Upper edge.
        left: Left edge.
        height: Height.
        width: Width.
        flip: Whether the crop is mirrored horizontally.
        is_free: Whether the crop may start at a fraction of a pixel and extend beyond the frame; other crops are cut at
            whole pixels.
        turn_degrees: Clockwise rotation (as displayed) about the crop's centre; only for a free crop.
    """

    top: float
    left: float
    height: float
    width: float
    flip: bool = False
    is_free: bool = False
    turn_degrees: float = 0.0

    def inside(self, part: Crop) -> Crop:
        """Convert this crop of a part of the frame to a crop of the frame."""
        top, left = part.top + self.top * part.height, part.left + self.left * part.width
        is_free = self.is_free or part.is_free
        height, width = self.height * part.height, self.width * part.width
        return Crop(top, left, height, width, self.flip, is_free, self.turn_degrees)


WHOLE = Crop(0.0, 0.0, 1.0, 1.0)


def centre_crop(height: int, width: int, size: int) -> Crop:
    """The central ``size`` x ``size`` square of a (height, width) frame."""
    return _square((height - size) // 2, (width - size) // 2, size, (height, width))


def crop_pixels(shape: tuple[int, ...], crop: Crop) -> tuple[slice, slice]:
    """Return the rows and columns that a fractional crop covers in a (h, w) frame; at least one pixel."""
    height, width = shape[:2]
    top = min(round(crop.top * height), height - 1)
    left = min(round(crop.left * width), width - 1)
    rows = max(1, min(round(crop.height * height), height - top))
    columns = max(1, min(round(crop.width * width), width - left))
    return slice(top, top + rows), slice(left, left + columns)


def foreground_square(resized: Image, region: ForegroundRegion, mask: Image | None = None) -> Crop:
    """Compute the square around the foreground of one frame; it depends on this frame alone.

    Its side is the longer side of the foreground's bounding box plus the margins, at most the frame's shorter side. The
    square is centred on the box and shifted into the frame if necessary.

    Args:
        resized: (h, w), uint8 or uint16.
        region: Definition of the foreground.
        mask: Optional (h, w) uint8 work buffer.

    Returns:
        The square; the frame's central square if there is no foreground.
    """
    height, width = resized.shape
    shorter = min(height, width)
    cv2 = opencv()
    mask = cv2.inRange(resized, region.low, region.high, dst=mask)
    per_row = cv2.reduce(mask, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    per_column = cv2.reduce(mask, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S).ravel()
    rows = np.flatnonzero(per_row >= _HIT * region.minimum_pixels)
    columns = np.flatnonzero(per_column >= _HIT * region.minimum_pixels)
    enough = int(per_row.sum()) / (_HIT * resized.size) >= region.minimum_share
    if not (enough and len(rows) and len(columns)):
        return centre_crop(height, width, shorter)
    (top, bottom), (left, right) = (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)
    side = min(round(max(bottom - top, right - left) * (1 + 2 * region.margin)), shorter)
    top = max(0, min((top + bottom - side) // 2, height - side))
    left = max(0, min((left + right - side) // 2, width - side))
    return _square(top, left, side, (height, width))


def _square(top: int, left: int, side: int, shape: tuple[int, int]) -> Crop:
    height, width = shape
    return Crop(top / height, left / width, side / height, side / width)
