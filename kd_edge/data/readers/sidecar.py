"""Stamps beside a video: to the nanosecond, where containers keep milliseconds.

Beside ``NAME.mkv`` lies ``NAME.mkv.stamps``: a line ``stamp_ns`` and one number for each frame, in any epoch. It also
tells how many frames there are, which a file whose writer was killed does not.
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
    """Where a video's stamps lie, if anywhere."""
    return path.with_name(path.name + ENDING)


def stamps_beside(path: Path) -> Int64 | None:
    """(T,) ns since the first frame, increasing; None where none lie beside the video.

    Raises:
        OSError: They cannot be read.
        ValueError: They are damaged.
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
        raise ValueError(f"{file.name} beside it: {error}") from error
    stamps.flags.writeable = False
    return stamps


def read_stamps(file: Path) -> Int64:
    """(T,) ns since the first, of a file of stamps; the line ``stamp_ns`` may be left out.

    Raises:
        OSError: It cannot be read.
        ValueError: No stamps, no numbers, or they do not increase.
    """
    lines = read_bytes(file, _MOST_BYTES).removeprefix(codecs.BOM_UTF8).split(None, _MOST_LINES)
    if len(lines) > _MOST_LINES:
        raise ValueError(f"more than {_MOST_LINES:,} stamps")
    try:
        numbers = [int(line) for line in (lines[1:] if lines[:1] == [HEADER.encode()] else lines)]
    except ValueError as error:
        raise ValueError("something else than whole numbers") from error
    try:
        stamps = np.array(numbers, dtype=np.int64)
    except OverflowError as error:
        raise ValueError("stamps of more than 64 bits") from error
    if not len(stamps) or np.any(np.diff(stamps) <= 0):
        raise ValueError(f"{len(stamps)} stamps that do not increase" if len(stamps) else "no stamp")
    return np.asarray(stamps - stamps[0], dtype=np.int64)
