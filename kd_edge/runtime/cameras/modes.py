"""Formats and modes of a camera, and the choice of the best one for a recogniser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PREFERRED = ("GREY", "Y8", "Y16", "YUYV", "MJPG")
"""8-bit infrared first, then 16-bit, then formats converted from colour."""
USUAL_PIXELS, USUAL_FPS = 640 * 480, 30.0


@dataclass(frozen=True, slots=True)
class Mode:
    """A size and its rates.

    Attributes:
        width_px: Width.
        height_px: Height, telemetry rows included.
        fps: Frames per second, highest first; empty if the device lists none, or a range.
    """

    width_px: int
    height_px: int
    fps: tuple[float, ...]

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.fps)
        return f"{self.width_px}x{self.height_px}{f' ({rates})' if rates else ''}"


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A pixel format and its sizes.

    Attributes:
        name: As ``pixel_format`` in a camera file: ``GREY``, ``Y16``, ``MJPG``.
        description: The device's description.
        modes: Sizes, largest first; for a range of sizes, its ends.
    """

    name: str
    description: str
    modes: tuple[Mode, ...]


def best(formats: Sequence[PixelFormat]) -> tuple[PixelFormat, Mode | None] | None:
    """Choose a format and mode: infrared if available, near 640x480 at 30 frames/s; None if no format is known.

    A range of sizes has no best mode; the device's default is used.
    """
    known = sorted((f for f in formats if f.name in PREFERRED), key=lambda f: PREFERRED.index(f.name))
    if not known:
        return None
    return known[0], min((mode for mode in known[0].modes if mode.fps), key=_unusual, default=None)


def best_fps(mode: Mode) -> float:
    """Return the rate nearest to the usual one."""
    return min(mode.fps, key=lambda rate: abs(rate - USUAL_FPS))


def _unusual(mode: Mode) -> tuple[float, float]:
    size = abs(math.log(max(1, mode.width_px * mode.height_px) / USUAL_PIXELS))
    return abs(best_fps(mode) - USUAL_FPS) > 0.5 * USUAL_FPS, size
