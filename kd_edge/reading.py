"""Files that may hold anything, read within bounds: only regular ones, no longer and no deeper than stated."""

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
"""How deep tables and lists of a user's file may lie inside one another."""
VALUES = 50_000
"""How many values a user's file may hold: of so many faults at most a list is made before the first is told."""
_INTEGER_DIGITS = 19
"""An int64 has no more."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, without waiting: a FIFO, socket, device or folder is refused.

    Raises:
        OSError: It is not there, not readable or not a regular file.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # NUL, or what the file system's encoding lacks
        raise OSError(errno.EINVAL, "no path of a file", str(path)) from error
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def is_file(path: Path) -> bool:
    """Whether a regular file lies there, or a link to one; False too where that cannot be found out."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a folder that may not be entered
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there, or a link to one; False too where that cannot be found out."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path, limit: int) -> bytes:
    """A regular file's bytes.

    Raises:
        OSError: As ``open_regular``, or it is longer than ``limit`` bytes.
    """
    with open_regular(path) as file:
        is_short = os.fstat(file.fileno()).st_size <= limit
        content = file.read(limit + 1) if is_short else b""
    if not is_short or len(content) > limit:  # it may have grown meanwhile
        raise OSError(errno.EFBIG, f"more than {limit:,} bytes", str(path))
    return content


def read_json(text: str) -> dict[str, Any]:
    """A JSON object of plain values; stricter than ``json.loads``.

    Raises:
        ValueError: Not JSON or no object, a key twice, NaN or an infinity, an integer longer than an int64, half a
            surrogate pair, nested deeper than ``DEPTH``, or more than ``VALUES``.
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
    json.dumps(raw, ensure_ascii=False).encode()  # a half pair of surrogates has no bytes
    return raw


def check_plain(value: object) -> None:
    """Refuse what plain values of a file never are, and what whoever copies or prints them would stumble over.

    Raises:
        ValueError: Nested deeper than ``DEPTH``, more than ``VALUES`` of them, or an integer that is no int64.
    """
    level, count = [value], 0
    for _ in range(DEPTH + 1):
        if any(isinstance(one, int) and not -(1 << 63) <= one < 1 << 63 for one in level):
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
            raise ValueError(f"'{key[:80]}' twice")
        table[key] = value
    return table


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} where a finite number belongs")
    return number


def _integer(text: str) -> int:
    if len(text) > _INTEGER_DIGITS + 1:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)
