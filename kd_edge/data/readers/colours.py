"""Decide whether pictures contain colour, by their pixels instead of their storage format."""

from __future__ import annotations

import numpy as np

from kd_edge.types import Image

SPREAD, SHARE = 24, 0.02
"""A pixel is coloured if its channels differ by more than ``SPREAD``; a picture, if the share of such pixels is larger.

JPEG and subsampled chroma leave less colour in a grey picture.
"""
ROUNDING = 6
"""Largest difference between the channels of a grey picture stored as YUV; the noise of a colour camera exceeds it."""
STEP = 4
"""Only every n-th row and column is examined."""


def is_coloured(image: Image) -> bool:
    """Whether a picture contains colour.

    Args:
        image: (H, W), which never does, or (H, W, 3 or more) uint8 in any order of channels.
    """
    if image.ndim != 3 or image.shape[2] < 3:
        return False
    pixels = image[::STEP, ::STEP, :3]
    return bool(np.mean(np.ptp(pixels, axis=2) > SPREAD) > SHARE)


def is_grey(image: Image) -> bool:
    """Whether a picture with contrast has no colour at all: one channel, or three equal ones.

    Args:
        image: (H, W), or (H, W, 3) uint8.
    """
    pixels = image[::STEP, ::STEP]
    has_contrast = int(pixels.max()) - int(pixels.min()) > SPREAD
    return has_contrast and (pixels.ndim == 2 or int(np.ptp(pixels, axis=2).max()) <= ROUNDING)
