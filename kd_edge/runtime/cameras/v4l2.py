"""V4L2 devices through OpenCV: 8-bit and 16-bit infrared, or colour.

A device is judged by the age of its frames, never by ``isOpened``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd_edge.artifact import Band
from kd_edge.errors import BadPictureError, CameraError, printable
from kd_edge.packages import import_extra
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.colour import Greying
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.cameras.links import device_path
from kd_edge.runtime.clock import ClockKind
from kd_edge.types import Frame, Image

log = logging.getLogger("kd_edge.runtime")


JPEGS = ("MJPG", "JPEG")
END_OF_JPEG = b"\xff\xd9"
PADDING = 4096
"""Drivers pad a JPEG with zeros."""


class V4l2Camera:
    """A ``/dev/video*`` device; see ``Camera``."""

    live = True
    can_vanish = True
    ended = False

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted) -> None:
        self.name = name
        self.band: Band | None = config.band
        self.dtype: Dtype | None = None
        self.channels: Channels | None = None
        self.fps: float | None = config.fps
        self._device = device_path(config.target)
        self.timeouts: TimeOuts = config
        self.clock_kind: ClockKind = config.clock
        self._config, self._wanted = config, wanted
        self._format = config.pixel_format or _usual_format(wanted)
        self._cv2 = import_extra("cv2", "cpu")
        self._greying = Greying(name, wanted)
        self._capture: Any = None
        self._count = 0
        self._size = (0, 0)  # height and width that the driver granted

    def open(self) -> None:
        """Open the device, request the configured format and check that it was granted."""
        self.close()
        cv2, config = self._cv2, self._config
        fourcc = cv2.VideoWriter.fourcc(*self._format.ljust(4))
        raw = self._format in ("GREY", "Y16")
        unconverted = raw or self._format in JPEGS
        parameters = [cv2.CAP_PROP_FOURCC, fourcc, cv2.CAP_PROP_CONVERT_RGB, 0 if unconverted else 1]
        with _quiet(cv2):
            self._capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2, parameters)
            for prop, value in (  # not in the call above: a driver that cannot set a rate would refuse to open
                (cv2.CAP_PROP_FRAME_WIDTH, config.width_px),
                (cv2.CAP_PROP_FRAME_HEIGHT, config.height_px),
                (cv2.CAP_PROP_FPS, config.fps),
            ):
                if value and self._capture.isOpened():
                    self._capture.set(prop, value)
        if not self._capture.isOpened():
            self.close()
            raise self._absent()
        try:
            self._check_granted(fourcc, raw)
        except CameraError:
            self.close()
            raise
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or config.fps
        if config.fps and self.fps and abs(self.fps - config.fps) > 0.1 * config.fps:
            name = printable(self.name)
            log.warning("camera %s: %g frames/s were requested, the driver gives %g", name, config.fps, self.fps)
        self.dtype = "uint16" if self._format == "Y16" else "uint8"
        self.channels = 1 if raw or self._wanted.channels == 1 else 3

    def read(self, timeout_seconds: float) -> Frame | None:
        """Return the next frame, with the driver's capture stamp."""
        cv2, capture = self._cv2, self._capture
        if capture is None:
            raise self._gone("it is closed")
        try:
            with _quiet(cv2):  # VideoCapture.read alone would block for 10 s on a silent device
                ready, _ = cv2.VideoCapture.waitAny([capture], round(timeout_seconds * 1e9))
                if not ready:
                    return None
                if not capture.grab():
                    raise self._gone("it delivers no frame")
                captured_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
                image = self._decoded(capture)
        except cv2.error as error:
            raise self._gone(error.err or "no frame") from error
        frame = Frame(image, captured_ns, self._count, self.name)
        self._count += 1
        return frame

    def _decoded(self, capture: Any) -> Image:
        """Decode the grabbed frame.

        Raises:
            BadPictureError: The frame is damaged: a truncated JPEG, missing bytes.
            CameraError: The frame has another size than the driver granted.
        """
        try:
            good, image = capture.retrieve()
            if not good or image is None:
                raise self._damaged("nothing there")
            converted = self._unpacked(image) if self._format in JPEGS else self._convert(image)
        except self._cv2.error as error:
            raise self._damaged(error.err or "no reason given") from error
        height, width = converted.shape[:2]
        if (height, width) != self._size:
            raise self._gone(f"its frames became {width}x{height}, not {self._size[1]}x{self._size[0]}")
        return _without_rows(converted, self._config.telemetry_rows)

    def close(self) -> None:
        """Release the device."""
        if self._capture is not None:
            with _quiet(self._cv2):
                self._capture.release()
            self._capture = None

    def _unpacked(self, jpeg: Image) -> Image:
        """Decode a JPEG; OpenCV's own conversion repeats the previous picture if one cannot be decoded."""
        packed = jpeg.ravel()
        if END_OF_JPEG not in packed[-PADDING:].tobytes():
            raise self._damaged("a truncated JPEG")
        grey = self.channels == 1
        image = self._cv2.imdecode(packed, self._cv2.IMREAD_GRAYSCALE if grey else self._cv2.IMREAD_COLOR)
        if image is None:
            raise self._damaged("a JPEG that cannot be decoded")
        if grey and self._greying.is_due:
            self._greying.see(self._cv2.imdecode(packed, self._cv2.IMREAD_COLOR))
        return self._convert(image)

    def _damaged(self, why: str) -> BadPictureError:
        return BadPictureError(f"camera {self.name}: a damaged picture ({why})", "a complete one", "check its cable")

    def _convert(self, image: Image) -> Image:
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[:, :, 0]
        if self._format in ("GREY", "Y16") or image.ndim == 2:
            return image
        self._greying.see(image)
        code = self._cv2.COLOR_BGR2GRAY if self.channels == 1 else self._cv2.COLOR_BGR2RGB
        converted: Image = self._cv2.cvtColor(image, code)
        return converted

    def _check_granted(self, fourcc: int, raw: bool) -> None:
        """Read back the settings: drivers substitute another format without an error."""
        cv2, capture, config = self._cv2, self._capture, self._config
        granted = int(capture.get(cv2.CAP_PROP_FOURCC))
        size = (round(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        asked_size = (config.width_px or size[0], config.height_px or size[1])
        self._size = size[::-1]
        if (raw or config.pixel_format) and granted != fourcc:
            found = granted.to_bytes(4, "little").decode("latin-1").strip()
            raise CameraError(
                f"{self._device} delivers pixel format {found!r}",
                f"{self._format!r}",
                f"v4l2-ctl --device {self._device} --list-formats shows what it can; set pixel_format to one of them",
            )
        if abs(config.telemetry_rows) >= size[1]:
            raise CameraError(
                f"{self._device} delivers {size[0]}x{size[1]}",
                f"more rows than telemetry_rows = {config.telemetry_rows}",
                "correct telemetry_rows",
            )
        if size != asked_size:
            raise CameraError(
                f"{self._device} delivers {size[0]}x{size[1]}",
                f"{asked_size[0]}x{asked_size[1]} as configured",
                f"set width_px = {size[0]} and height_px = {size[1]}, or leave them out",
            )

    def _absent(self) -> CameraError:
        path = Path(self._device)
        if not path.exists():
            found = f"camera {self.name}: no device {self._device}"
        elif not _readable(path):
            found = f"camera {self.name}: no permission for {self._device} (is the user in the group 'video'?)"
        else:
            found = f"camera {self.name}: {self._device} cannot be opened (in use by another program, or no camera)"
        return CameraError(found, "a V4L2 camera", "kd-edge cameras shows what is attached and the line to use it")

    def _gone(self, why: str) -> CameraError:
        return CameraError(
            f"camera {self.name} ({self._device}) is gone: {why}", "frames", "check its cable; kd-edge cameras"
        )


def _without_rows(image: Image, telemetry_rows: int) -> Image:
    """Copy the picture without rows at its bottom, or at its top if their number is negative."""
    if not telemetry_rows:
        return image
    return (image[:-telemetry_rows] if telemetry_rows > 0 else image[-telemetry_rows:]).copy()


def _usual_format(wanted: Wanted) -> str:
    if wanted.dtype == "uint16":
        return "Y16"
    return "YUYV" if wanted.channels == 3 else "GREY"


def _readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except PermissionError:
        return False
    except OSError:
        return True


@contextmanager
def _quiet(cv2: Any) -> Iterator[None]:
    """Keep OpenCV's own warnings off the terminal: the CameraError contains what matters."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
