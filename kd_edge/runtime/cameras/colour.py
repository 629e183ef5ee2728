"""Colour that is made grey for a model of one channel, and recorded grey for a model of colour: said once.

What counts is the picture, not its format: near infrared often comes as YUV or JPEG without any colour in it.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import numpy as np

from kd_edge.errors import printable
from kd_edge.runtime.cameras.base import Wanted
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.types import Image

log = logging.getLogger(__name__)

SPREAD, SHARE = 24, 0.02
"""A pixel is coloured whose channels are further apart than that, a picture with a larger share of such pixels.

JPEG and subsampled chroma leave less in a grey one.
"""
STEP = 4
"""Every so-manieth row and column is looked at."""


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
        image: (H, W), or (H, W, 3) uint8. Of a camera of colour noise alone makes the channels differ.
    """
    some = image[::STEP, ::STEP]
    has_contrast = int(some.max()) - int(some.min()) > SPREAD
    return has_contrast and (some.ndim == 2 or not np.ptp(some, axis=2).any())


class Greying:
    """Tells once that a camera's colour is made grey, or that its grey is shown to a model of colour.

    Args:
        name: Of the camera.
        wanted: What the model needs.
    """

    def __init__(self, name: str, wanted: Wanted) -> None:
        self._name, self._wanted = name, wanted
        self.is_due = wanted.channels is not None
        """Whether a picture as it came is still to be looked at."""

    def see(self, image: Image) -> None:
        """Look at the first picture before it is converted."""
        if not self.is_due:
            return
        self.is_due = False
        found = ""
        if self._wanted.channels == 1 and is_coloured(image):
            found = "colour, made grey"
        elif self._wanted.channels == 3 and is_grey(image):
            found = "grey, the same in three channels"
        if found:
            log.warning(
                "camera %s gives %s for this model%s: labels are worth what such pictures are to it; use a camera like "
                "the ones it was trained for, or another model",
                printable(self._name),
                found,
                "" if self._wanted.band is None else f" of {self._wanted.band} pictures",
            )


def look_at_recording(name: str, config: CameraConfig, wanted: Wanted) -> None:
    """The same of a recording: its first frame is read once more, as it is stored.

    What is wrong with it is told by who replays it.
    """
    from kd_edge.runtime.cameras.replay import ReplayCamera

    greying = Greying(name, wanted)
    if not greying.is_due:
        return
    with suppress(Exception):
        camera = ReplayCamera(name, config, Wanted())
        try:
            camera.open()
            if (frame := camera.read(0.0)) is not None:
                greying.see(frame.image)
        finally:
            camera.close()
