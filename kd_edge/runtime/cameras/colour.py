"""Warn once if colour is converted to grey for a one-channel model, or grey is shown to a colour model.

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
    """Warns once if a camera's colour is converted to grey, or its grey is shown to a colour model.

    Args:
        name: Name of the camera.
        wanted: What the model needs.
    """

    def __init__(self, name: str, wanted: Wanted) -> None:
        self._name, self._wanted = name, wanted
        self.is_due = wanted.channels is not None
        """Whether an unconverted picture still has to be checked."""

    def see(self, image: Image) -> None:
        """Check the first picture before it is converted."""
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
                "camera %s gives %s for this model%s: labels are only as reliable as the model is on such pictures; "
                "use a camera like the ones it was trained for, or another model",
                printable(self._name),
                found,
                "" if self._wanted.band is None else f" of {self._wanted.band} pictures",
            )


def look_at_recording(name: str, config: CameraConfig, wanted: Wanted) -> None:
    """Compare a recording's colours with what the model needs, by reading its first frame once more as stored.

    Faults of the recording are ignored here; replaying it reports them.
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
