"""Which part of a resized frame the network sees: fractional crops, and the square around whoever is in view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kd_edge.errors import import_extra
from kd_edge.types import Image


@cache
def opencv() -> ModuleType:
    """OpenCV, looked up once: a stream asks several times with each frame."""
    return import_extra("cv2", "cpu")


_HIT = 255  # OpenCV marks a pixel inside the range with this


class FrameRegion(BaseModel):
    """The whole frame; evaluation takes its centre."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["frame"] = "frame"


class ForegroundRegion(BaseModel):
    """The square around the foreground of each frame, which raw values tell from the background.

    For depth in millimetres ``low`` and ``high`` are the near and far end of the space a person acts in, and 0 (no
    measurement) lies outside; for thermal infrared they are the warm values.

    Attributes:
        low: Smallest raw value of the foreground.
        high: Largest raw value of the foreground.
        margin: What the bounding box's longer side grows by at each end, as a share of it.
        minimum_pixels: Rows and columns of the resized frame with fewer foreground pixels do not count, so that single
            noisy pixels cannot widen the box.
        minimum_share: A frame with a smaller share of foreground pixels shows nobody: its central square is taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["foreground"] = "foreground"
    low: int = Field(1, ge=0, le=65535)
    high: int = Field(65535, ge=0, le=65535)
    margin: float = Field(0.1, ge=0, le=1)
    minimum_pixels: int = Field(3, ge=1)
    minimum_share: float = Field(0.01, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> ForegroundRegion:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) must not exceed high ({self.high})")
        return self


Region = Annotated[FrameRegion | ForegroundRegion, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Crop:
    """A crop of the resized frame as fractions of its height and width, with an optional mirror.

    Fractions let paired modalities of different sizes share one crop.
    """

    top: float
    left: float
    height: float
    width: float
    flip: bool = False

    def inside(self, part: Crop) -> Crop:
        """This crop of a part of the frame, as a crop of the frame."""
        top, left = part.top + self.top * part.height, part.left + self.left * part.width
        return Crop(top, left, self.height * part.height, self.width * part.width, self.flip)


WHOLE = Crop(0.0, 0.0, 1.0, 1.0)


def centre_crop(height: int, width: int, size: int) -> Crop:
    """The central ``size`` x ``size`` square of a (height, width) frame."""
    return _square((height - size) // 2, (width - size) // 2, size, (height, width))


def crop_pixels(shape: tuple[int, ...], crop: Crop) -> tuple[slice, slice]:
    """Rows and columns that a fractional crop covers in a (h, w) frame; at least one pixel."""
    height, width = shape[:2]
    top = min(round(crop.top * height), height - 1)
    left = min(round(crop.left * width), width - 1)
    rows = max(1, min(round(crop.height * height), height - top))
    columns = max(1, min(round(crop.width * width), width - left))
    return slice(top, top + rows), slice(left, left + columns)


def foreground_square(resized: Image, region: ForegroundRegion, mask: Image | None = None) -> Crop:
    """The square around the foreground of one frame; it depends on this frame alone.

    Its side is the longer side of the foreground's bounding box, grown by the margin, at most the frame's shorter side;
    it lies centrally about the box and is moved into the frame where it would stand out.

    Args:
        resized: (h, w), uint8 or uint16.
        region: What is foreground.
        mask: Optional (h, w) uint8 to work in.

    Returns:
        The square; the central one of the frame's shorter side when there is no foreground.
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


def crop_inside(region: FrameRegion | ForegroundRegion, crop: Crop, resized: Image, mask: Image | None = None) -> Crop:
    """A crop of a frame's region as a crop of the frame.

    Args:
        region: Part of a frame that the preprocessing crops.
        crop: Crop in fractions of the region, which is square unless it is the frame.
        resized: The frame, (h, w) or (h, w, 3).
        mask: Optional (h, w) uint8 to work in.
    """
    if isinstance(region, FrameRegion):
        return crop
    return crop.inside(foreground_square(resized, region, mask))


def _square(top: int, left: int, side: int, shape: tuple[int, int]) -> Crop:
    height, width = shape
    return Crop(top / height, left / width, side / height, side / width)
