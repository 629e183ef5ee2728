"""Read untrusted files within bounds: regular files only, limited in size and nesting depth."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

DEPTH = 32
"""Largest nesting depth of tables and lists in a user's file."""
VALUES = 50_000
"""Largest number of values in a user's file, which also limits how many faults are collected before reporting."""
_INTEGER_DIGITS = 19
"""Largest number of digits of an int64."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, without blocking: a FIFO, socket, device or folder is refused.

    Raises:
        OSError: The file does not exist, is not readable or is not a regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # NUL, or a character that the file system's encoding lacks
        raise OSError(errno.EINVAL, "not a valid path", str(path)) from error
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def is_file(path: Path) -> bool:
    """Whether the path is a regular file or a link to one; False if this cannot be determined."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a folder that may not be entered
        return False


def is_folder(path: Path) -> bool:
    """Whether the path is a folder or a link to one; False if this cannot be determined."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file.

    Raises:
        OSError: As for ``open_regular``, or the file is longer than ``limit`` bytes.
    """
    with open_regular(path) as file:
        is_short = os.fstat(file.fileno()).st_size <= limit
        content = file.read(limit + 1) if is_short else b""
    if not is_short or len(content) > limit:  # the file may have grown since
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return content


def read_json(text: str) -> dict[str, Any]:
    """Parse a JSON object of plain values; stricter than ``json.loads``.

    Raises:
        ValueError: The text is not a JSON object, repeats a key, contains NaN, an infinity, an integer longer than an
            int64 or a lone surrogate, is nested deeper than ``DEPTH``, or has more than ``VALUES`` values.
    """
    try:
        raw = json.loads(
            text, object_pairs_hook=_table, parse_constant=_finite, parse_float=_finite, parse_int=_integer
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(raw, dict):
        raise ValueError(f"a {type(raw).__name__} instead of an object")
    check_plain(raw)
    json.dumps(raw, ensure_ascii=False).encode()  # fails for a lone surrogate
    return raw


def check_plain(value: object) -> None:
    """Refuse values that no user's file needs and that would break code which copies or prints them.

    Raises:
        ValueError: The values are nested deeper than ``DEPTH``, are more than ``VALUES``, or contain an integer that is
            not an int64.
    """
    level, count = [value], 0
    for _ in range(DEPTH + 1):
        if any(isinstance(item, int) and not -(1 << 63) <= item < 1 << 63 for item in level):
            raise ValueError("an integer of more than 64 bits")
        level = [child for parent in level for child in _children(parent)]
        count += len(level)
        if count > VALUES:
            raise ValueError(f"more than {VALUES:,} values")
        if not level:
            return
    raise ValueError(f"nested deeper than {DEPTH} levels")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key '{key[:80]}' occurs twice")
        table[key] = value
    return table


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} instead of a finite number")
    return number


def _integer(text: str) -> int:
    if len(text) > _INTEGER_DIGITS + 1:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)
