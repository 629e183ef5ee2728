"""Read the text files of wearable sensors: three axes and usually a time stamp on every line."""

from __future__ import annotations

import re
from bisect import bisect_left
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.errors import DataError
from kd_edge.types import Float32, Int64

VERSION = 1
"""Version of ``read_signal``; part of content keys."""

_CLOCK = re.compile(
    r"(\d{4})-?(\d{2})-?(\d{2})[_T ](\d{1,2}):(\d{2}):(\d{2}(?:\.\d*)?)(?:Z|[+-]\d{2}:?\d{2})?", re.IGNORECASE
)
_EPOCH = date(1970, 1, 1).toordinal()
_UNITS = (1.0, 1e-3, 1e-6, 1e-9)  # seconds to nanoseconds
_LARGEST = 1e30  # larger numbers are damage and exceed float32
_JITTER = 0.1  # largest share of lines with wrong stamps; with more of them the file counts as unsorted


class Columns(NamedTuple):
    """Columns of a file, counted from 0.

    Attributes:
        axes: Column of the first axis; the other two follow.
        time: Column of the time stamp.
        timed: Whether a line without a time stamp is damaged.
    """

    axes: int
    time: int
    timed: bool


class SignalFile(NamedTuple):
    """Content of one file.

    Attributes:
        values: (T, 3) float32, T >= 2.
        stamps_ns: (T,) int64, strictly increasing, 0 at the first; None if the file has no time stamps.
        start_s: The first time stamp on the file's own clock, in seconds; 0 without one.
    """

    values: Float32
    stamps_ns: Int64 | None
    start_s: float


def read_signal(path: Path, columns: Columns, rate_hz: float) -> SignalFile:
    """Read one file with numbers separated by commas or blanks; a header line is skipped.

    Time stamps may be dates with a time (``20181016_13:37:28.612000``, ISO 8601; the zone is ignored) or numbers. The
    unit of numbers, seconds to nanoseconds, is the one whose median step is nearest to the nominal rate. Sensors
    sometimes stamp single samples too late, so that the next ones seem to step back: as few lines as possible are
    dropped to make the stamps increase, or, if that were more than a tenth, the lines are sorted instead. Of equal
    stamps the first line is kept.

    Args:
        path: The file.
        columns: Columns of the axes and the time stamp.
        rate_hz: Nominal rate of the sensor, 1/s.

    Raises:
        DataError: The file is missing or has fewer than two lines, or a line lacks three finite numbers or its time
            stamp; the message names file and line.
    """
    values, stamps = _parse(path, columns)
    if len(values) < 2:
        raise DataError(
            f"{path} has {len(values)} samples of the sensor", "two or more", "fetch it again, or train without it"
        )
    axes = np.array(values, dtype=np.float32)
    if stamps is None:
        return SignalFile(axes, None, 0.0)
    seconds = np.array(stamps, dtype=np.float64)
    if not isinstance(stamps[0], _Moment):
        seconds *= time_unit(seconds, rate_hz)
    ns = np.round((seconds - seconds.min()) * 1e9).astype(np.int64)
    kept = increasing(ns)
    if len(kept) < 2:
        raise DataError(f"{path}: its time stamps do not increase", "stamps in temporal order", "fetch this file again")
    return SignalFile(axes[kept], ns[kept] - ns[kept[0]], float(seconds[kept[0]]))


def increasing(stamps: Int64) -> npt.NDArray[np.intp]:
    """Return the positions of the stamps to keep so that they strictly increase; see ``read_signal``."""
    kept = _longest_increasing(stamps.tolist())
    if len(kept) >= (1 - _JITTER) * len(np.unique(stamps)):
        return kept
    return np.unique(stamps, return_index=True)[1]  # sorted, the first of equal ones


def time_unit(stamps: npt.NDArray[np.float64], rate_hz: float) -> float:
    """Return the seconds per unit of numeric time stamps: 1, 1e-3, 1e-6 or 1e-9, the best fit to the nominal rate."""
    steps = np.abs(np.diff(stamps))
    step = float(np.median(steps[steps > 0])) if np.any(steps > 0) else 1 / rate_hz
    return min(_UNITS, key=lambda unit: abs(np.log(step * unit * rate_hz)))


class _Moment(float):
    """Seconds since 1970 read from a date, so that their unit is known."""


def _parse(path: Path, columns: Columns) -> tuple[list[tuple[float, ...]], list[float] | None]:
    """Three axes per line, and the time stamps unless the first line has none."""
    values: list[tuple[float, ...]] = []
    stamps: list[float] = []
    timed = columns.timed
    for number, line in enumerate(_lines(path), 1):
        fields = [field.strip() for field in line.split(",")] if "," in line else line.split()
        if not any(fields):
            continue
        axes = fields[columns.axes : columns.axes + 3]
        if not values and len(axes) == 3 and not any(_number(field) is not None for field in axes):
            continue  # names of the columns
        if not values:
            timed = timed or len(fields) > columns.time
        row = tuple(x for x in map(_number, axes) if x is not None and -_LARGEST < x < _LARGEST)  # also excludes nan
        if len(row) < 3:
            raise _wrong(path, number, line, "three finite numbers")
        values.append(row)
        if timed:
            stamp = _stamp(fields[columns.time]) if len(fields) > columns.time else None
            if stamp is None or isinstance(stamp, _Moment) != isinstance(stamps[0] if stamps else stamp, _Moment):
                raise _wrong(path, number, line, "a time stamp, of one kind in the whole file")
            stamps.append(stamp)
    return values, stamps if timed else None


def _longest_increasing(stamps: list[int]) -> npt.NDArray[np.intp]:
    """Positions of the longest strictly increasing part (patience sorting), the first of equal stamps."""
    lowest: list[int] = []  # lowest stamp that ends a part of each length
    ends: list[int] = []  # its position
    before = [-1] * len(stamps)
    for position, stamp in enumerate(stamps):
        length = bisect_left(lowest, stamp)
        if length < len(lowest) and lowest[length] == stamp:
            continue
        before[position] = ends[length - 1] if length else -1
        lowest[length : length + 1], ends[length : length + 1] = [stamp], [position]
    chain, position = [], ends[-1] if ends else -1
    while position >= 0:
        chain.append(position)
        position = before[position]
    return np.array(chain[::-1], dtype=np.intp)


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None


def _stamp(field: str) -> float | None:
    match = _CLOCK.fullmatch(field)
    if match is None:
        number = _number(field)
        return number if number is not None and -_LARGEST < number < _LARGEST else None
    year, month, day, hour, minute = (int(part) for part in match.groups()[:5])
    try:
        days = date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None
    return _Moment(days * 86_400 + hour * 3600 + minute * 60 + float(match[6]))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", "the sensor's recording", "complete the data set") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error})", "a text file", "fetch this file again") from error


def _wrong(path: Path, line: int, found: str, expected: str) -> DataError:
    return DataError(f"{path}, line {line}: '{found.strip()[:80]}'", expected, "fetch this file again")
