"""Random numbers of a training clip: its own generators, its crop and its mirroring."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np

from kd_edge.crop import Crop
from kd_edge.train.recipe.augment import Augment

SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of a multi-scale crop as shares of the frame's shorter side (TSN)."""


SCALE_PAIRS = tuple((tall, wide) for i, tall in enumerate(SCALES) for j, wide in enumerate(SCALES) if abs(i - j) <= 1)
"""Heights and widths a multi-scale crop may have: at most one step apart (TSN's ``max_distort`` of 1)."""


CORNERS = ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0))


EDGES = ((-1.0, 0.0), (0.0, -1.0), (0.0, 1.0), (1.0, 0.0))


QUARTERS = ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))


PLACES = ((0.0, 0.0), *CORNERS, *EDGES, *QUARTERS)
"""The 13 positions (down, right) of a multi-scale crop, as shares of its free space (TSN's ``more_fix_crop``)."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Random numbers of one sample's modality in one epoch, a generator for each purpose.

    What is drawn for one purpose never depends on whether another is switched on.

    Attributes:
        key: Seed, epoch, sample and modality, as numbers.
    """

    key: tuple[int, ...]

    def of(self, purpose: str) -> np.random.Generator:
        """The generator for a purpose; the same at every call."""
        return np.random.default_rng([*self.key, zlib.crc32(purpose.encode())])


@dataclass(frozen=True, slots=True)
class CropDraw:
    """A crop in relative terms: the same for frames of any size.

    Attributes:
        tall: Height as a share of the frame's shorter side.
        wide: Width, likewise.
        down: Offset of the centre, in [-1, 1] of the room the crop has vertically.
        right: Offset of the centre, in [-1, 1] of the room the crop has horizontally.
        flip: Mirror.
        turn_degrees: Turn it, clockwise.
    """

    tall: float
    wide: float
    down: float
    right: float
    flip: bool
    turn_degrees: float = 0.0

    def on(self, height: int, width: int) -> Crop:
        """The crop of a (height, width) frame."""
        shorter = min(height, width)
        tall, wide = self.tall * shorter / height, self.wide * shorter / width
        top = (1 - tall) / 2 * (1 + self.down)
        left = (1 - wide) / 2 * (1 + self.right)
        return Crop(top, left, tall, wide, self.flip, self.turn_degrees != 0, self.turn_degrees)

    def about(self) -> Crop:
        """The crop of a square around a person, which it may exceed; shifted by shares of the square's side."""
        top, left = (1 - self.tall) / 2 + self.down, (1 - self.wide) / 2 + self.right
        return Crop(top, left, self.tall, self.wide, self.flip, True, self.turn_degrees)


def draw_crop(augment: Augment, rng: np.random.Generator, draws: Draws) -> CropDraw:
    """Draw size, position and mirroring of one sample, always four numbers; then rotation and aspect."""
    down, right = rng.random(2)
    flip = bool(rng.random() < 0.5) and augment.flip
    size = rng.random()
    turn = float(draws.of("rotation").uniform(-1, 1)) * augment.rotation_degrees
    if augment.quarter_turns:
        turn += 90.0 * float(draws.of("quarter turns").integers(4))
    if augment.crop == "multi_scale":
        return CropDraw(*SCALE_PAIRS[int(size * len(SCALE_PAIRS))], *PLACES[int(down * len(PLACES))], flip, turn)
    low, high = augment.crop_scale
    side = float(low + (high - low) * size)
    down, right = (float(-augment.shift + 2 * augment.shift * place) for place in (down, right))
    taller = math.exp(float(draws.of("aspect").uniform(-1, 1)) * math.log1p(augment.aspect) / 2)
    return CropDraw(side * taller, side / taller, down, right, flip, turn)
