"""Whether there is colour in pictures: in what is seen, not in the format that they are stored in."""

from __future__ import annotations

import numpy as np

from kd_edge.types import Image

SPREAD, SHARE = 24, 0.02
"""A pixel is coloured whose channels are further apart than that, a picture with a larger share of such pixels.

JPEG and subsampled chroma leave less in a grey one.
"""
ROUNDING = 6
"""Channels of a grey picture that was stored as YUV differ by no more; of a colour camera noise alone does."""
STEP = 4
"""Every n-th row and column is looked at."""


def is_coloured(image: Image) -> bool:
    """Whether a picture has colours in it.

    Args:
        image: (H, W), which has none, or (H, W, 3 or more) uint8 in any order of channels.
    """
    if image.ndim != 3 or image.shape[2] < 3:
        return False
    some = image[::STEP, ::STEP, :3]
    return bool(np.mean(np.ptp(some, axis=2) > SPREAD) > SHARE)


def is_grey(image: Image) -> bool:
    """Whether a picture with something in it has no colour at all: one channel, or three that are the same.

    Args:
        image: (H, W), or (H, W, 3) uint8.
    """
    some = image[::STEP, ::STEP]
    has_contrast = int(some.max()) - int(some.min()) > SPREAD
    return has_contrast and (some.ndim == 2 or int(np.ptp(some, axis=2).max()) <= ROUNDING)
