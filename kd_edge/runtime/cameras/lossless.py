"""Write FFV1 in Matroska: lossless 8- or 16-bit pixels, grey or colour, with stamps in milliseconds."""

from __future__ import annotations

from fractions import Fraction
from typing import BinaryIO, NamedTuple

import numpy as np

from kd_edge.packages import import_extra
from kd_edge.types import Image

ENDING = ".mkv"
_MILLISECOND = Fraction(1, 1000)
_OPTIONS = {"level": "3", "slicecrc": "1", "g": "1"}
"""Checksums, so that damage is detected, and only key frames."""
_CONTAINER_OPTIONS = {"cluster_time_limit": "500", "flush_packets": "1"}
"""A killed process loses only the last cluster: one frame, or half a second of small ones."""


class _Pixels(NamedTuple):
    """PyAV's pixel format names for arrays and for FFV1."""

    array: str
    stored: str


_PIXELS = {
    ("uint8", 2): _Pixels("gray", "gray"),
    ("uint16", 2): _Pixels("gray16le", "gray16le"),
    ("uint8", 3): _Pixels("rgb24", "bgr0"),
    ("uint16", 3): _Pixels("rgb48le", "gbrp16le"),
}


class LosslessWriter:
    """Writes frames of one size and type.

    Args:
        file: File open for writing; the caller closes it.
        first: An image with the size and type of all frames.
        fps: Approximate frame rate, for players.
    """

    def __init__(self, file: BinaryIO, first: Image, fps: float) -> None:
        self._av = import_extra("av", "replay")
        self._pixels = _PIXELS[first.dtype.name, first.ndim]
        self._container = self._av.open(file, "w", format="matroska", container_options=dict(_CONTAINER_OPTIONS))
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
            image: Same size and type as the first one.
            stamp_ns: Time since the first frame.
        """
        little = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<"))
        picture = self._av.VideoFrame.from_ndarray(little, format=self._pixels.array)
        if self._pixels.array != self._pixels.stored:
            picture = picture.reformat(format=self._pixels.stored)
        self._last_ms = max(self._last_ms + 1, round(stamp_ns / 1e6))
        picture.pts, picture.time_base = self._last_ms, _MILLISECOND
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Flush the encoder and close."""
        self._container.mux(self._stream.encode())
        self.close()

    def close(self) -> None:
        """Release the encoder; unwritten frames are lost."""
        self._container.close()
