"""Random changes of a training clip, drawn once per sample and shared by all its modalities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kd_edge.preprocess import Crop
from kd_edge.train.recipe import Augment
from kd_edge.types import Float32


@dataclass(frozen=True, slots=True)
class CropDraw:
    """A square crop in relative terms: the same for frames of any size.

    Attributes:
        scale: Side as a share of the frame's shorter side.
        down: Offset of the centre, in [-1, 1] of the room the crop has vertically.
        right: Likewise horizontally.
        flip: Mirror.
    """

    scale: float
    down: float
    right: float
    flip: bool

    def on(self, height: int, width: int) -> Crop:
        """The crop of a (height, width) frame."""
        side = self.scale * min(height, width)
        tall, wide = side / height, side / width
        top = (1 - tall) / 2 * (1 + self.down)
        left = (1 - wide) / 2 * (1 + self.right)
        return Crop(top, left, tall, wide, self.flip)


def draw_crop(augment: Augment, rng: np.random.Generator) -> CropDraw:
    """Draw scale, place and mirroring of one sample."""
    low, high = augment.crop_scale
    down, right = rng.uniform(-augment.shift, augment.shift, 2)
    flip = bool(rng.random() < 0.5)  # always drawn: switching flip on must not change the rest
    return CropDraw(float(rng.uniform(low, high)), float(down), float(right), flip and augment.flip)


def jitter_limits(limits: Float32, augment: Augment, rng: np.random.Generator) -> Float32:
    """Change gain and offset of a clip's intensity windows, (T, 2) -> (T, 2)."""
    gain = 1 + rng.uniform(-augment.gain, augment.gain)
    offset = rng.uniform(-augment.offset, augment.offset)
    span = limits[:, 1:] - limits[:, :1]
    centre = limits.mean(axis=1, keepdims=True) + np.float32(offset) * span
    half = np.float32(gain / 2) * span
    changed: Float32 = np.concatenate([centre - half, centre + half], axis=1)
    return changed


def mix_colours(clip: Float32, augment: Augment, rng: np.random.Generator) -> Float32:
    """Shuffle the colours of a network input (T, 3 M, S, S) and mix them with their mean, alike in all frames."""
    if augment.colour == 0:
        return clip
    planes = clip.reshape(len(clip), -1, 3, *clip.shape[2:])  # (T, M, 3, S, S)
    share = np.float32(rng.uniform(0, augment.colour))
    mixed: Float32 = (1 - share) * planes[:, :, rng.permutation(3)] + share * planes.mean(axis=2, keepdims=True)
    return mixed.reshape(clip.shape)


def add_noise(clip: Float32, augment: Augment, rng: np.random.Generator) -> None:
    """Add Gaussian noise to a network input in place."""
    if augment.noise > 0:
        clip += np.float32(augment.noise) * rng.standard_normal(clip.shape, dtype=np.float32)
