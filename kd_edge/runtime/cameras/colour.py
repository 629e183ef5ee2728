"""Colour that is made grey for a model of one channel, and recorded grey for a model of colour: said once.

What counts is the picture, not its format: near infrared often comes as YUV or JPEG without any colour in it.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from kd_edge.data.readers.colours import is_coloured, is_grey
from kd_edge.errors import printable
from kd_edge.runtime.cameras.base import Wanted
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.types import Image

log = logging.getLogger(__name__)


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
    """Compare a recording's colours with what the model wants: its first frame is read once more, as it is stored.

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
