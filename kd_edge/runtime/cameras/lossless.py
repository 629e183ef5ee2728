"""FFV1 in Matroska: pixels come back to the bit, 8 or 16, grey or colour. Stamps are kept to the millisecond."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from kd_edge.data.readers.bounds import check_pixels
from kd_edge.data.readers.images import rgb_or_grey
from kd_edge.errors import MissingExtraError, import_extra, reason
from kd_edge.reading import open_regular
from kd_edge.types import Image

ENDING = ".mkv"
_MILLISECOND = Fraction(1, 1000)
_OPTIONS = {"level": "3", "slicecrc": "1", "g": "1"}
"""Checksums, so that damage is found, and each frame by itself."""


class _Pixels(NamedTuple):
    """What PyAV calls pixels as arrays hold them, and as FFV1 does."""

    array: str
    stored: str


_PIXELS = {
    ("uint8", 2): _Pixels("gray", "gray"),
    ("uint16", 2): _Pixels("gray16le", "gray16le"),
    ("uint8", 3): _Pixels("rgb24", "bgr0"),
    ("uint16", 3): _Pixels("rgb48le", "gbrp16le"),
}
_ARRAYS = {pixels.stored: pixels.array for pixels in _PIXELS.values()}


class LosslessWriter:
    """Writes frames of one size and kind.

    Args:
        file: Open for writing; it is the caller's to close.
        first: An image as all are.
        fps: About how many come a second, for players.
    """

    def __init__(self, file: BinaryIO, first: Image, fps: float) -> None:
        self._av = import_extra("av", "replay")
        self._pixels = _PIXELS[first.dtype.name, first.ndim]
        self._container = self._av.open(file, "w", format="matroska")
        rate = Fraction(max(1.0, min(fps, 1000.0))).limit_denominator(1000)
        self._stream = self._container.add_stream("ffv1", rate=rate, options=dict(_OPTIONS))
        self._stream.height, self._stream.width = first.shape[:2]
        self._stream.pix_fmt = self._pixels.stored
        self._stream.codec_context.time_base = _MILLISECOND
        self._stream.codec_context.thread_count = 1  # labels need the other cores
        self._last_ms = -1

    def add(self, image: Image, stamp_ns: int) -> None:
        """Write a frame.

        Args:
            image: As the first one.
            stamp_ns: Since the first one.
        """
        little = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
        picture = self._av.VideoFrame.from_ndarray(little, format=self._pixels.array)
        if self._pixels.array != self._pixels.stored:
            picture = picture.reformat(format=self._pixels.stored)
        self._last_ms = max(self._last_ms + 1, round(stamp_ns / 1e6))
        picture.pts, picture.time_base = self._last_ms, _MILLISECOND
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Write what is left."""
        self._container.mux(self._stream.encode())
        self.close()

    def close(self) -> None:
        """Release the encoder; what was not written is lost."""
        self._container.close()


def is_lossless(path: Path) -> bool:
    """Whether a file is FFV1 in Matroska; False too where PyAV is not installed or cannot open it."""
    if path.suffix.lower() != ENDING:
        return False
    try:
        av = import_extra("av", "replay")
        open_regular(path).close()
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            return bool(stream.codec_context.name == "ffv1" and stream.codec_context.pix_fmt in _ARRAYS)
    except MissingExtraError:
        return False
    except Exception:  # whatever FFmpeg raises is told by who reads it
        return False


def read_lossless(path: Path, fps: float | None, grey: bool) -> Iterator[tuple[Image, int]]:
    """The frames and their stamps, as the file has them.

    Args:
        path: For which ``is_lossless``.
        fps: Of frames that are to be evenly spaced instead.
        grey: Make colour grey.

    Raises:
        ValueError: Damaged here.
    """
    av = import_extra("av", "replay")
    last_ns = -1
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            check_pixels(stream.width, stream.height)
            stream.codec_context.options = {"err_detect": "explode"}
            form = _ARRAYS[stream.codec_context.pix_fmt]
            for k, picture in enumerate(container.decode(stream)):
                stamp_ns = k * 1e9 / fps if fps else round((picture.pts or 0) * stream.time_base * 1_000_000_000)
                last_ns = max(last_ns + 1, round(stamp_ns))
                yield _image(picture, form, grey), last_ns
    except av.FFmpegError as error:
        raise ValueError(reason(error)) from error


def _image(picture: Any, form: str, grey: bool) -> Image:
    image: Image = picture.reformat(format=form).to_ndarray()
    if image.ndim == 2 or not grey:
        return image
    return rgb_or_grey(import_extra("cv2", "cpu"), image[:, :, ::-1].copy(), True)
