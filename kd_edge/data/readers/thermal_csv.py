"""Text recordings of low-resolution thermal arrays: one frame per line, ``Time (sec)``, ``PTAT``, pixels in deg C.

The format is that of the Nagoya University far-infrared action data set (OMRON D6T-1616L): date and time, a header
line, then the frames. A pixel becomes uint16 in centikelvin (0.01 K, TLinear in radiometric thermal cameras), because
cameras, cache and network inputs use integers, and 3 mK of rounding are far below such a sensor's noise (16 mK).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.errors import DataError, printable, reason
from kd_edge.reading import open_regular
from kd_edge.types import Clip

UNIT = "cK"
"""Unit of a pixel: hundredths of a kelvin."""
VERSION = 1
"""Version of reading; changing it rebuilds caches."""
SETTLING_FRAMES = 15
"""Most frames for which a sensor's values rise after it is switched on."""
SETTLED_CENTIKELVIN = 50
"""A frame is settled if its median differs by at most this much from that of a settled one."""

_HEADER = b"Time (sec),PTAT,P"
_SUPPORT = 2  # columns before the pixels: time, temperature of the sensor itself
_LINE_BYTES = 1 << 18
_MOST_PIXELS = 160 * 120
_LEAST_SIDE = 4
_ZERO_CELSIUS = 273.15
_HOTTEST_CELSIUS = 65_535 / 100 - _ZERO_CELSIUS
_LONGEST_S = 1e6


class Row(NamedTuple):
    """One frame of a recording.

    Attributes:
        image: (H, W) uint16, centikelvin.
        stamp_ns: Its time column, relative to the first frame of the file.
    """

    image: npt.NDArray[np.uint16]
    stamp_ns: int


def is_thermal(head: bytes) -> bool:
    """Whether a file is a recording of this format, by its first bytes."""
    _, _, header = head.partition(b"\n")
    return header.startswith(_HEADER)


def read_thermal(path: Path) -> Clip:
    """Read all frames of a recording, including those while the sensor starts up.

    Returns:
        (T, H, W) uint16 in centikelvin; stamps are 0 at the first frame.

    Raises:
        DataError: The file is missing or damaged; the message names file and line.
    """
    rows = list(thermal_rows(path))
    return Clip(np.stack([row.image for row in rows]), np.array([row.stamp_ns for row in rows], dtype=np.int64))


def thermal_rows(path: Path) -> Iterator[Row]:
    """Yield the frames of a recording, at least one, parsed lazily.

    Raises:
        DataError: See ``read_thermal``.
    """
    try:
        with open_regular(path) as file:
            yield from _rows(path, file)
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", "the recording", "complete the data set (kd-edge data check)") from error
    except OSError as error:
        raise DataError(
            f"cannot read {path} ({error.strerror or reason(error)})", "a file", "check its path"
        ) from error


def settled(rows: Iterator[Row]) -> Iterator[Row]:
    """Skip the frames at the start of a recording whose sensor has not settled."""
    first = list(islice(rows, SETTLING_FRAMES + 1))
    yield from first[start_up(np.stack([row.image for row in first])) :]
    yield from rows


def start_up(frames: npt.NDArray[np.uint16]) -> int:
    """Number of frames at the start of a recording whose sensor has not settled.

    Args:
        frames: (T, H, W) uint16 in centikelvin.
    """
    first = frames[: SETTLING_FRAMES + 1]
    medians = np.median(first.reshape(len(first), -1), axis=1)  # (T,)
    far = np.flatnonzero(np.abs(medians - medians[-1]) > SETTLED_CENTIKELVIN)
    return int(far[-1]) + 1 if far.size else 0


def _rows(path: Path, file: BinaryIO) -> Iterator[Row]:
    _line(path, file, 1)  # the time of recording
    names = _line(path, file, 2).split(b",")
    shape = _shape(path, names)
    first_s, last_s = math.nan, -math.inf
    number = 3
    while line := _line(path, file, number):
        seconds, image = _frame(path, number, line, shape)
        if not seconds > last_s:
            raise _damaged(path, number, f"{seconds:g} s after {last_s:g} s", "a later time than the line before")
        first_s = seconds if math.isnan(first_s) else first_s
        last_s = seconds
        yield Row(image, round((seconds - first_s) * 1e9))
        number += 1
    if number == 3:
        raise _damaged(path, number, "no frame", "one line per frame")


def _line(path: Path, file: BinaryIO, number: int) -> bytes:
    line = file.readline(_LINE_BYTES)
    if len(line) == _LINE_BYTES:
        raise _damaged(path, number, f"more than {_LINE_BYTES:,} bytes", f"at most {_MOST_PIXELS:,} pixels")
    return line.strip()


def _shape(path: Path, names: list[bytes]) -> tuple[int, int]:
    """Rows and columns by the number of pixels: a square array, or a 3:4 one such as 24 x 32 and 60 x 80."""
    pixels = len(names) - _SUPPORT
    if not b",".join(names).startswith(_HEADER):
        expected = "the names of the columns: Time (sec), PTAT, P000, P001 and so on"
        raise _damaged(path, 2, f"'{_shown(names[0])}'", expected)
    side, third = math.isqrt(max(pixels, 0)), math.isqrt(max(pixels, 0) // 12)
    if side >= _LEAST_SIDE and side * side == pixels <= _MOST_PIXELS:
        return side, side
    if third and 12 * third * third == pixels <= _MOST_PIXELS:
        return 3 * third, 4 * third
    raise _damaged(path, 2, f"{pixels} pixels", f"a square or 3:4 array of up to {_MOST_PIXELS:,} pixels")


def _frame(path: Path, number: int, line: bytes, shape: tuple[int, int]) -> tuple[float, npt.NDArray[np.uint16]]:
    fields = line.split(b",")
    count = _SUPPORT + shape[0] * shape[1]
    if len(fields) != count:
        raise _damaged(path, number, f"{len(fields)} values", f"{count}: time, PTAT and {count - _SUPPORT} pixels")
    seconds, celsius = _number(fields[0]), np.array([_number(field) for field in fields[_SUPPORT:]])
    if not abs(seconds) <= _LONGEST_S:
        raise _damaged(path, number, f"time '{_shown(fields[0])}'", "seconds")
    invalid = np.flatnonzero(~((celsius >= -_ZERO_CELSIUS) & (celsius <= _HOTTEST_CELSIUS)))
    if invalid.size:
        found = f"pixel {invalid[0]} is '{_shown(fields[_SUPPORT + int(invalid[0])])}'"
        raise _damaged(path, number, found, f"deg C from {-_ZERO_CELSIUS} to {_HOTTEST_CELSIUS:.2f}")
    return seconds, np.rint((celsius + _ZERO_CELSIUS) * 100).astype(np.uint16).reshape(shape)  # (H*W,) -> (H, W)


def _number(field: bytes) -> float:
    try:
        return float(field)
    except ValueError:
        return math.nan


def _shown(field: bytes) -> str:
    return printable(field[:40].decode("utf-8", "replace"))


def _damaged(path: Path, line: int, found: str, expected: str) -> DataError:
    return DataError(f"{path}, line {line}: {found}", expected, "fetch this file again")
