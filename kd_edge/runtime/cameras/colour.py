"""Colour that is made grey for a model of one channel: converted, because nothing is invented by it, and said once.

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


class Greying:
    """Tells once that a camera's colour is made grey.

    Args:
        name: Of the camera.
        wanted: What the model needs.
    """

    def __init__(self, name: str, wanted: Wanted) -> None:
        self._name, self._wanted = name, wanted
        self.is_due = wanted.channels == 1
        """Whether a picture as it came is still to be looked at."""

    def see(self, image: Image) -> None:
        """Look at the first picture before it is converted."""
        if not self.is_due:
            return
        self.is_due = False
        if is_coloured(image):
            log.warning(
                "camera %s gives colour, made grey for this model%s: labels are worth what such pictures are to it; "
                "use a camera like the ones it was trained for, or a model of colour",
                printable(self._name),
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
