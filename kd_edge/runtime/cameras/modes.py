"""What a camera can deliver, and which of it suits a recogniser best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PREFERRED = ("GREY", "Y8", "Y16", "YUYV", "MJPG")
"""Infrared of 8 bits first, then of 16, then what is converted from colour."""
USUAL_PIXELS, USUAL_FPS = 640 * 480, 30.0


@dataclass(frozen=True, slots=True)
class Mode:
    """A size and its rates.

    Attributes:
        width_px: Width.
        height_px: Height, telemetry rows included.
        fps: Frames per second, the highest first; empty where the device does not say, or has a range.
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
        description: The device's words.
        modes: The largest first; of a range of sizes its ends.
    """

    name: str
    description: str
    modes: tuple[Mode, ...]


def best(formats: Sequence[PixelFormat]) -> tuple[PixelFormat, Mode | None] | None:
    """The format and size to begin with: infrared if there is, near 640x480 at 30 frames/s; None without a known one.

    A range of sizes has no best one: the device's own is taken.
    """
    known = sorted((f for f in formats if f.name in PREFERRED), key=lambda f: PREFERRED.index(f.name))
    if not known:
        return None
    return known[0], min((mode for mode in known[0].modes if mode.fps), key=_unusual, default=None)


def best_fps(mode: Mode) -> float:
    """The rate nearest to the usual one."""
    return min(mode.fps, key=lambda rate: abs(rate - USUAL_FPS))


def _unusual(mode: Mode) -> tuple[float, float]:
    size = abs(math.log(max(1, mode.width_px * mode.height_px) / USUAL_PIXELS))
    return abs(best_fps(mode) - USUAL_FPS) > 0.5 * USUAL_FPS, size
