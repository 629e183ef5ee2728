"""OpenCV as a fallback for videos that PyAV cannot open, and for robots without PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np

from kd_edge.data.readers.bounds import check_pixels
from kd_edge.data.readers.timing import LONGEST_NS, Stamps
from kd_edge.errors import MissingExtraError
from kd_edge.packages import import_extra
from kd_edge.reading import open_regular
from kd_edge.types import Image

UNKNOWN = "it is not a video that PyAV or OpenCV can read"
TIMEOUT_MS = 5000
_DEFAULT_FPS = 30.0
_HEAD_BYTES = 1024
_FFMPEG_LOG = "OPENCV_FFMPEG_LOGLEVEL"
_DEEP_GREY = b"Y1\0"
"""Beginning of FFmpeg's four-character code for grey of more than 8 bit, followed by the bits."""


class Info(NamedTuple):
    """Header as read by OpenCV; see ``VideoInfo``."""

    frames: int
    fps: float
    height_px: int
    width_px: int
    seconds: float


def fault(path: Path) -> str | None:
    """Reason why OpenCV cannot or must not open a file (text, for example, may name other files); None if it can."""
    try:
        with _capture(path):
            return None
    except MissingExtraError:
        return UNKNOWN
    except ValueError as error:
        return str(error)


def info(path: Path) -> Info | None:
    """Read the header; None if OpenCV cannot open the file."""
    try:
        with _capture(path) as (cv2, capture):
            frames, fps = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), _fps(cv2, capture)
            height, width = capture.get(cv2.CAP_PROP_FRAME_HEIGHT), capture.get(cv2.CAP_PROP_FRAME_WIDTH)
            return Info(frames, fps, int(height), int(width), frames / fps)
    except (ValueError, OSError, MissingExtraError):
        return None


def frames(path: Path, channels: Literal[1, 3] | None, max_height_px: int | None = None) -> Iterator[tuple[Image, int]]:
    """Yield every frame, upright, (H, W) or (H, W, 3) uint8 in R, G, B order, and its time since the first one in ns.

    Raises:
        ValueError: OpenCV cannot open the file, its frames have too many pixels, or it is grey of more than 8 bit,
            which OpenCV would reduce to 8.
    """
    with _capture(path) as (cv2, capture):
        stamps = Stamps(1e9 / _fps(cv2, capture))
        while True:
            has_image, image = capture.read()
            if not has_image:
                return
            since_ns = stamps.since_first(_stamp_ns(capture.get(cv2.CAP_PROP_POS_MSEC)))
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if channels == 1 else cv2.COLOR_BGR2RGB)
            if max_height_px is not None and image.shape[0] > max_height_px:
                width = max(1, round(image.shape[1] * max_height_px / image.shape[0]))
                image = cv2.resize(image, (width, max_height_px), interpolation=cv2.INTER_AREA)
            yield image, since_ns


@contextmanager
def _capture(path: Path) -> Iterator[tuple[Any, Any]]:
    cv2 = import_extra("cv2", "cpu")
    with open_regular(path) as file:
        if b"\0" not in file.read(_HEAD_BYTES):
            raise ValueError("it is text, not a video")
        capture = _opened(cv2, file)
        try:
            if capture is None:
                raise ValueError(UNKNOWN)
            check_pixels(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            letters = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xFFFFFFFF
            if letters.to_bytes(4, "little").startswith(_DEEP_GREY):
                raise ValueError("it is grey of more than 8 bit, which only PyAV reads: pip install av")
            yield cv2, capture
        finally:
            if capture is not None:
                capture.release()


def _opened(cv2: Any, file: BinaryIO) -> Any:
    """Open a file by its descriptor, so that its name cannot act as a pattern or an address."""
    name = f"/dev/fd/{file.fileno()}"
    with _quiet(cv2):
        return _tried(cv2, file, name)


def _tried(cv2: Any, file: BinaryIO, name: str) -> Any:
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]
    for backend, options in ((cv2.CAP_FFMPEG, limits), (cv2.CAP_OPENCV_MJPEG, [])):
        file.seek(0)
        capture = cv2.VideoCapture(name, backend, options)
        if capture.isOpened():
            return capture
        capture.release()
    return None


@contextmanager
def _quiet(cv2: Any) -> Iterator[None]:
    """Silence OpenCV and its FFmpeg, which print their own messages; the caller reports one line instead."""
    logging, given = cv2.utils.logging, os.environ.get(_FFMPEG_LOG)
    level = logging.getLogLevel()
    os.environ.setdefault(_FFMPEG_LOG, "-8")  # read once, with the first file
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)
        if given is None:
            del os.environ[_FFMPEG_LOG]


def _fps(cv2: Any, capture: Any) -> float:
    found = float(capture.get(cv2.CAP_PROP_FPS))
    return found if 0.001 <= found <= 1000 else _DEFAULT_FPS


def _stamp_ns(milliseconds: float) -> int | None:
    is_usable = np.isfinite(milliseconds) and abs(milliseconds) * 1e6 <= LONGEST_NS
    return round(milliseconds * 1e6) if is_usable else None
