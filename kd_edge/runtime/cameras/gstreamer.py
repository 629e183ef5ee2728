"""Pipelines of GStreamer through OpenCV, where it was built with it: for cameras of boards (``nvarguscamerasrc``).

OpenCV waits for a pipeline's frames as long as it likes, so it does in a thread of its own. OpenCV tells no stamp that
can be trusted: the moment of arrival stands in.
"""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np

from kd_edge.artifact import Band
from kd_edge.errors import CameraError, KdEdgeError, import_extra, reason
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.bounds import check_pixels
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.cameras.connection import MOST_FPS, Arrivals, Connection, Picture
from kd_edge.runtime.cameras.network import CLOSE_SECONDS, OPEN_TIMEOUT_MS
from kd_edge.runtime.clock import MONOTONIC, Clock, ClockKind
from kd_edge.types import Frame, Image

SINK = "appsink drop=true max-buffers=1 sync=false"
"""Where a pipeline ends that does not say so: the newest frame wins."""
ADVICE = "try it with gst-launch-1.0, fakesink in the place of appsink"


class GStreamerCamera:
    """What a pipeline of GStreamer delivers; see ``Camera``."""

    live = True
    can_vanish = True
    ended = False
    clock_kind: ClockKind = "monotonic"

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted, *, clock: Clock = MONOTONIC) -> None:
        self.name = name
        self.band: Band | None = config.band
        self.dtype: Dtype | None = None
        self.channels: Channels | None = None
        self.fps: float | None = config.fps
        self.timeouts: TimeOuts = config
        self._config, self._wanted, self._clock = config, wanted, clock
        self._connection: Connection | None = None
        self._count = 0
        self._cv2: Any = import_extra("cv2", "cpu")

    def open(self) -> None:
        """Start the pipeline and wait for its first frame, which tells dtype and channels."""
        self.close()
        if not self._cv2.videoio_registry.hasBackend(self._cv2.CAP_GSTREAMER):
            raise CameraError(
                f"camera {self.name}: this OpenCV ({self._cv2.__version__}) was built without GStreamer",
                "one that was built with it; those of pip are not",
                "uninstall opencv-python and use the system's: apt install python3-opencv (JetPack has its own), and a "
                "virtual environment with --system-site-packages",
            )
        if self._connection is not None:
            raise self._connection.fault(
                "its last pipeline still hangs", "a frame or an error", "look at what feeds it"
            )
        self._connection = Connection(
            self.name, self._play, self._explained, ended="the pipeline has ended", advice=ADVICE
        )
        open_seconds = (self._config.open_timeout_ms or OPEN_TIMEOUT_MS) / 1e3
        try:
            picture = self._connection.take(open_seconds)
            if picture is None:
                raise self._connection.silent(open_seconds)
        except BaseException:
            self.close()
            raise
        first = picture.content
        self.fps = self._config.fps or self._connection.fps
        self.dtype = "uint16" if first.dtype == np.uint16 else "uint8"
        self.channels = 1 if first.ndim == 2 or self._wanted.channels == 1 else 3

    def read(self, timeout_seconds: float) -> Frame | None:
        """The newest frame that was not read yet."""
        if self._connection is None:
            raise CameraError(f"camera {self.name} is closed", "an open camera", "open it first")
        picture = self._connection.take(timeout_seconds)
        if picture is None:
            return None
        frame = Frame(self._converted(picture.content), picture.stamp_ns, self._count, self.name)
        self._count += 1
        return frame

    def interrupt(self) -> None:
        """End a wait in ``open`` or ``read``; called from another thread."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def close(self) -> None:
        """Stop the pipeline. A thread that does not end in time is left behind until it does."""
        if self._connection is not None and self._connection.close(CLOSE_SECONDS):
            self._connection = None

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

    def _converted(self, image: Image) -> Image:
        if image.ndim == 2:
            return image
        code = self._cv2.COLOR_BGR2GRAY if self.channels == 1 else self._cv2.COLOR_BGR2RGB
        converted: Image = self._cv2.cvtColor(image[:, :, :3], code)
        return converted


def with_sink(pipeline: str, wanted: Wanted) -> str:
    """The pipeline as it is, or where it has no ``appsink``, with one that takes what the model needs."""
    if re.search(r"\bappsink\b", pipeline):
        return pipeline
    if wanted.dtype == "uint16":  # not converted to: that would invent counts
        return f"{pipeline} ! capsfilter caps=video/x-raw,format=GRAY16_LE ! {SINK}"
    return f"{pipeline} ! videoconvert ! video/x-raw,format={'GRAY8' if wanted.channels == 1 else 'BGR'} ! {SINK}"


def check_image(image: Image, height: int, width: int) -> None:
    """Refuse what OpenCV takes for a picture and is none: planes below each other, packed bytes.

    Raises:
        ValueError: It is one.
    """
    check_pixels(width, height)
    is_grey = image.ndim == 2 and image.dtype in (np.uint8, np.uint16)
    is_colour = image.ndim == 3 and image.shape[2] in (3, 4) and image.dtype == np.uint8
    if image.shape[:2] != (height, width) or not (is_grey or is_colour):
        raise ValueError(f"its frames are {image.dtype} {image.shape}, no picture of {width}x{height}")
