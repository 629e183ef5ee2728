"""Recordings of low-resolution thermal arrays as text: a line a frame, ``Time (sec)``, ``PTAT``, pixels in deg C.

The format is that of the Nagoya University far-infrared action data set (OMRON D6T-1616L): date and time, a header
line, then the frames. A pixel becomes uint16 in centikelvin (0.01 K, what radiometric thermal cameras call TLinear):
cameras, cache and network inputs hold integers, and 3 mK of rounding are far below such a sensor's noise (16 mK).
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
"""Of a pixel: hundredths of a kelvin."""
VERSION = 1
"""Of what is made of a file: another one makes caches anew."""
SETTLING_FRAMES = 15
"""A sensor's values climb for at most so many frames after it is switched on."""
SETTLED_CENTIKELVIN = 50
"""A frame whose median is so near to that of a settled one is settled too."""

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
        stamp_ns: Of its time column, from the first frame of the file.
    """

    image: npt.NDArray[np.uint16]
    stamp_ns: int


def is_thermal(head: bytes) -> bool:
    """Whether a file that begins so is a recording of this format."""
    _, _, header = head.partition(b"\n")
    return header.startswith(_HEADER)


def read_thermal(path: Path) -> Clip:
    """All frames of a recording, those of the sensor's start too.

    Returns:
        (T, H, W) uint16 in centikelvin; stamps are 0 at the first frame.

    Raises:
        DataError: Absent or damaged; file and line are named.
    """
    rows = list(thermal_rows(path))
    return Clip(np.stack([row.image for row in rows]), np.array([row.stamp_ns for row in rows], dtype=np.int64))


def thermal_rows(path: Path) -> Iterator[Row]:
    """The frames of a recording, each parsed when its turn comes; at least one.

    Raises:
        DataError: As ``read_thermal``.
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
    """Leave out the frames of a sensor that is just being switched on: it measures nothing yet."""
    first = list(islice(rows, SETTLING_FRAMES + 1))
    yield from first[start_up(np.stack([row.image for row in first])) :]
    yield from rows


def start_up(frames: npt.NDArray[np.uint16]) -> int:
    """How many frames at the start are those of a sensor that has not settled.

    Args:
        frames: (T, H, W) uint16 in centikelvin.
    """
    first = frames[: SETTLING_FRAMES + 1]
    medians = np.median(first.reshape(len(first), -1), axis=1)  # (T,)
    far = np.flatnonzero(np.abs(medians - medians[-1]) > SETTLED_CENTIKELVIN)
    return int(far[-1]) + 1 if far.size else 0


def _rows(path: Path, file: BinaryIO) -> Iterator[Row]:
    _line(path, file, 1)  # when it was recorded
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
        raise _damaged(path, number, "no frame", "a line for each frame")


def _line(path: Path, file: BinaryIO, number: int) -> bytes:
    line = file.readline(_LINE_BYTES)
    if len(line) == _LINE_BYTES:
        raise _damaged(path, number, f"more than {_LINE_BYTES:,} bytes", f"at most {_MOST_PIXELS:,} pixels")
    return line.strip()


def _shape(path: Path, names: list[bytes]) -> tuple[int, int]:
    """Rows and columns by the number of pixels: a square array, or one of 3 to 4 as 24 x 32 and 60 x 80."""
    pixels = len(names) - _SUPPORT
    if not b",".join(names).startswith(_HEADER):
        wanted = "the names of the columns: Time (sec), PTAT, P000, P001 and so on"
        raise _damaged(path, 2, f"'{_shown(names[0])}'", wanted)
    side, third = math.isqrt(max(pixels, 0)), math.isqrt(max(pixels, 0) // 12)
    if side >= _LEAST_SIDE and side * side == pixels <= _MOST_PIXELS:
        return side, side
    if third and 12 * third * third == pixels <= _MOST_PIXELS:
        return 3 * third, 4 * third
    raise _damaged(path, 2, f"{pixels} pixels", f"a square array or one of 3 to 4, up to {_MOST_PIXELS:,} pixels")


def _frame(path: Path, number: int, line: bytes, shape: tuple[int, int]) -> tuple[float, npt.NDArray[np.uint16]]:
    fields = line.split(b",")
    wanted = _SUPPORT + shape[0] * shape[1]
    if len(fields) != wanted:
        raise _damaged(path, number, f"{len(fields)} values", f"{wanted}: time, PTAT and {wanted - _SUPPORT} pixels")
    seconds, celsius = _number(fields[0]), np.array([_number(field) for field in fields[_SUPPORT:]])
    if not abs(seconds) <= _LONGEST_S:
        raise _damaged(path, number, f"time '{_shown(fields[0])}'", "seconds")
    wrong = np.flatnonzero(~((celsius >= -_ZERO_CELSIUS) & (celsius <= _HOTTEST_CELSIUS)))
    if wrong.size:
        found = f"pixel {wrong[0]} is '{_shown(fields[_SUPPORT + int(wrong[0])])}'"
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
