"""Query the formats, sizes and rates of a V4L2 device from its driver by four ioctls.

Implemented here because the library that does it, linuxpy, is under the GPL. Structures are those of
``linux/videodev2.h``, which are the same on every machine.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kd_edge.errors import CameraError, printable
from kd_edge.runtime.cameras.modes import Mode, PixelFormat

MOST_FORMATS, MOST_SIZES, MOST_RATES = 64, 64, 32
"""Limits of the enumerations: a broken driver may never end them."""

_QUERYCAP = 0x80685600
_ENUM_FMT, _ENUM_FRAMESIZES, _ENUM_FRAMEINTERVALS = 0xC0405602, 0xC02C564A, 0xC034564B
_QUERYCAP_BYTES, _FMT_BYTES, _SIZE_BYTES, _INTERVAL_BYTES = 104, 64, 44, 52
_VIDEO_CAPTURE, _DEVICE_CAPS = 0x1, 0x80000000
_DISCRETE = 1


def formats(device: Path) -> list[PixelFormat]:
    """Return the formats of a capture device, in the driver's order; empty if it delivers no pictures.

    Raises:
        CameraError: The device cannot be opened or queried.
    """
    try:
        with _opened(device) as handle:
            answer = _asked(handle, _QUERYCAP, bytes(_QUERYCAP_BYTES))
            capabilities, of_node = struct.unpack_from("II", answer, 84)
            if not (of_node if capabilities & _DEVICE_CAPS else capabilities) & _VIDEO_CAPTURE:
                return []
            return list(_formats(handle))
    except OSError as error:
        raise CameraError(
            f"{device} does not report its formats ({error.strerror})", "a V4L2 camera", "is the user in group 'video'?"
        ) from error


@contextmanager
def _opened(device: Path) -> Iterator[int]:
    handle = os.open(device, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _asked(handle: int, request: int, question: bytes) -> bytes:
    return fcntl.ioctl(handle, request, question)


def _answers(handle: int, request: int, size: int, most: int, *following: int) -> Iterator[bytes]:
    """Iterate over the answers to an indexed query, until the driver has no more."""
    for index in range(most):
        question = struct.pack(f"I{len(following)}I", index, *following)
        try:
            yield _asked(handle, request, question.ljust(size, b"\0"))
        except OSError:  # EINVAL after the last one, ENOTTY if the driver has no such list
            return


def _formats(handle: int) -> Iterator[PixelFormat]:
    for answer in _answers(handle, _ENUM_FMT, _FMT_BYTES, MOST_FORMATS, _VIDEO_CAPTURE):
        description, code = struct.unpack_from("32sI", answer, 12)
        modes = sorted(_modes(handle, code), key=lambda m: m.width_px * m.height_px, reverse=True)
        yield PixelFormat(_fourcc(code), _text(description), tuple(modes))


def _modes(handle: int, code: int) -> Iterator[Mode]:
    for answer in _answers(handle, _ENUM_FRAMESIZES, _SIZE_BYTES, MOST_SIZES, code):
        kind, *numbers = struct.unpack_from("7I", answer, 8)
        if kind == _DISCRETE:
            sizes = [(numbers[0], numbers[1])]
        else:  # the only answer: minimum width, maximum width, step, minimum height, maximum height, step
            sizes = [(numbers[0], numbers[3]), (numbers[1], numbers[4])]
        for size in sizes:
            yield Mode(*size, _rates(handle, code, *size))


def _rates(handle: int, code: int, width: int, height: int) -> tuple[float, ...]:
    found = set()
    for answer in _answers(handle, _ENUM_FRAMEINTERVALS, _INTERVAL_BYTES, MOST_RATES, code, width, height):
        kind, numerator, denominator = struct.unpack_from("3I", answer, 16)
        if kind != _DISCRETE:
            break
        if numerator:
            found.add(round(denominator / numerator, 3))
    return tuple(sorted(found, reverse=True))


def _fourcc(code: int) -> str:
    """``Y16 `` is written ``Y16``; the highest bit of the code says big endian and is left out."""
    return _text((code & 0x7FFFFFFF).to_bytes(4, "little")).strip()


def _text(content: bytes) -> str:
    """Return a driver's text made printable; for a USB camera, its maker may have chosen it."""
    return printable(content.partition(b"\0")[0].decode(errors="replace"))
