"""Sidecar files with a video's stamps in nanoseconds, since containers store only milliseconds.

``NAME.mkv.stamps`` next to ``NAME.mkv`` contains a line ``stamp_ns`` and one number per frame, in any epoch. It also
gives the number of frames, which the header of a video lacks if its writer was killed.
"""

from __future__ import annotations

import codecs
import functools
from pathlib import Path

import numpy as np

from kd_edge.reading import is_file, read_bytes
from kd_edge.types import Int64

ENDING = ".stamps"
HEADER = "stamp_ns"
_MOST_BYTES = 64_000_000
_MOST_LINES = 2_000_000
_REMEMBERED = 256


def beside(path: Path) -> Path:
    """Return the path of a video's sidecar file, which need not exist."""
    return path.with_name(path.name + ENDING)


def stamps_beside(path: Path) -> Int64 | None:
    """Read a video's sidecar file: (T,) ns since the first frame, increasing; None if there is none.

    Raises:
        OSError: The sidecar file cannot be read.
        ValueError: The sidecar file is damaged.
    """
    file = beside(path)
    if not is_file(file):
        return None
    stat = file.stat()
    return _remembered(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=_REMEMBERED)
def _remembered(file: Path, size: int, mtime_ns: int) -> Int64:
    try:
        stamps = read_stamps(file)
    except ValueError as error:
        raise ValueError(f"{file.name} next to it: {error}") from error
    stamps.flags.writeable = False
    return stamps


def read_stamps(file: Path) -> Int64:
    """Read a file of stamps: (T,) ns since the first; the line ``stamp_ns`` is optional.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file has no stamps, contains anything but whole numbers, or they do not increase.
    """
    lines = read_bytes(file, _MOST_BYTES).removeprefix(codecs.BOM_UTF8).split(None, _MOST_LINES)
    if len(lines) > _MOST_LINES:
        raise ValueError(f"more than {_MOST_LINES:,} stamps")
    try:
        numbers = [int(line) for line in (lines[1:] if lines[:1] == [HEADER.encode()] else lines)]
    except ValueError as error:
        raise ValueError("something other than whole numbers") from error
    try:
        stamps = np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise ValueError("stamps of more than 64 bits") from error
    if not len(stamps) or np.any(np.diff(stamps) <= 0):
        raise ValueError(f"{len(stamps)} stamps that do not increase" if len(stamps) else "no stamp")
    return np.asarray(stamps - stamps[0], dtype=np.int64)
