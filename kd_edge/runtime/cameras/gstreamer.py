"""GStreamer pipelines through an OpenCV built with GStreamer, for example for board cameras (``nvarguscamerasrc``).

OpenCV may wait indefinitely for a frame, so it runs in its own thread. Its stamps cannot be trusted; the time of
arrival is used instead.
"""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np

from kd_edge.data.readers.bounds import check_pixels
from kd_edge.errors import CameraError, KdEdgeError, reason
from kd_edge.packages import import_extra
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.colour import Greying
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.cameras.connected import ConnectedCamera, ErrorTexts
from kd_edge.runtime.cameras.connection import MOST_FPS, Arrivals, Connection, Picture
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.types import Image

SINK = "appsink drop=true max-buffers=1 sync=false"
"""Sink appended to a pipeline without one; the newest frame wins."""
ADVICE = "try it with gst-launch-1.0, fakesink in the place of appsink"


class GStreamerCamera(ConnectedCamera):
    """A GStreamer pipeline as a camera; see ``Camera``."""

    texts = ErrorTexts(
        hangs="its last pipeline still hangs",
        expected="a frame or an error",
        fix="look at what feeds it",
        ended="the pipeline has ended",
        advice=ADVICE,
    )

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted, *, clock: Clock = MONOTONIC) -> None:
        super().__init__(name, config, wanted, clock=clock)
        self._cv2: Any = import_extra("cv2", "cpu")
        self._greying = Greying(name, wanted)

    def open(self) -> None:
        """Start the pipeline and wait for its first frame, which determines dtype and channels."""
        if not self._cv2.videoio_registry.hasBackend(self._cv2.CAP_GSTREAMER):
            raise CameraError(
                f"camera {self.name}: this OpenCV ({self._cv2.__version__}) was built without GStreamer",
                "one that was built with it; those of pip are not",
                "uninstall opencv-python and use the system's: apt install python3-opencv (JetPack has its own), and a "
                "virtual environment with --system-site-packages",
            )
        super().open()

    def _play(self, connection: Connection) -> None:
        cv2 = self._cv2
        capture = cv2.VideoCapture(with_sink(self._config.target, self._wanted), cv2.CAP_GSTREAMER)
        try:
            if not capture.isOpened():
                raise connection.fault(
                    "its pipeline cannot be started",
                    "one whose elements are installed and whose end is grey (GRAY8, GRAY16_LE) or BGR",
                    ADVICE,
                )
            height, width = (
                round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
                round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            )
            fps = capture.get(cv2.CAP_PROP_FPS)
            connection.connected(fps if 0 < fps <= MOST_FPS else None)
            arrivals = Arrivals(self._config.fps or connection.fps)
            while connection.is_wanted:
                good, image = capture.read()
                if not good:
                    return
                check_image(image, height, width)
                now = time.monotonic()
                connection.hand_over(Picture(image, self._clock.now_ns(), now + arrivals.held(now)))
        finally:
            capture.release()

    def _explained(self, connection: Connection, error: BaseException) -> KdEdgeError:
        return connection.fault(
            reason(error), "frames that are grey (GRAY8, GRAY16_LE) or BGR", "end it in videoconvert"
        )

    def _kind(self, first: Image) -> tuple[Dtype, Channels]:
        is_grey = first.ndim == 2 or self._wanted.channels == 1
        return "uint16" if first.dtype == np.uint16 else "uint8", 1 if is_grey else 3

    def _image(self, connection: Connection, content: Image) -> Image:
        if content.ndim == 2:
            return content
        self._greying.see(content)
        code = self._cv2.COLOR_BGR2GRAY if self.channels == 1 else self._cv2.COLOR_BGR2RGB
        converted: Image = self._cv2.cvtColor(content[:, :, :3], code)
        return converted


def with_sink(pipeline: str, wanted: Wanted) -> str:
    """Return the pipeline, with an ``appsink`` for what the model needs appended if it has none."""
    if re.search(r"\bappsink\b", pipeline):
        return pipeline
    if wanted.dtype == "uint16":  # no conversion to 16 bits, which would invent counts
        return f"{pipeline} ! capsfilter caps=video/x-raw,format=GRAY16_LE ! {SINK}"
    return f"{pipeline} ! videoconvert ! video/x-raw,format={'GRAY8' if wanted.channels == 1 else 'BGR'} ! {SINK}"


def check_image(image: Image, height: int, width: int) -> None:
    """Refuse arrays that OpenCV returns but that are not pictures: stacked planes, packed bytes.

    Raises:
        ValueError: The array is not a picture.
    """
    check_pixels(width, height)
    is_grey = image.ndim == 2 and image.dtype in (np.uint8, np.uint16)
    is_colour = image.ndim == 3 and image.shape[2] in (3, 4) and image.dtype == np.uint8
    if image.shape[:2] != (height, width) or not (is_grey or is_colour):
        raise ValueError(f"its frames are {image.dtype} {image.shape}, no picture of {width}x{height}")
