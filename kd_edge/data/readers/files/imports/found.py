"""Result type and helpers shared by the readers of other tools' lists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kd_edge.data.readers.files.rows import MOST_BYTES, Cells
from kd_edge.data.readers.files.settings import MODALITY
from kd_edge.errors import DataError, reason
from kd_edge.reading import read_bytes

SIDES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip


class Wanted(NamedTuple):
    """Import options.

    Attributes:
        root: The folder with the files.
        modality: Modality of the files if the list does not contain it.
        names: Class names for lists with numbers: number -> name.
        label: Column with the class; None for the usual names.
        fps: Frame rate of folders of images, 1/s.
    """

    root: Path
    modality: str
    names: dict[int, str]
    label: str | None
    fps: float


@dataclass(slots=True)
class Found:
    """Content of one list.

    Attributes:
        kind: Description of the format, for messages.
        path: Path of the list.
        cells: Its rows, with the column names of a manifest.
        modalities: Columns with files.
        remarks: What was left out, and why.
    """

    kind: str
    path: Path
    cells: list[Cells]
    modalities: tuple[str, ...]
    remarks: list[str] = field(default_factory=list)


def read_text(path: Path) -> str:
    """Read a list's text; bytes that are not UTF-8 become surrogates, as in file names.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        return read_bytes(path, MOST_BYTES).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise unreadable(path, error.strerror or reason(error)) from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that contains a JSON object.

    Raises:
        DataError: The file cannot be read, or contains something else.
    """
    return json_object(path, read_text(path))


def json_object(path: Path, text: str, line: int = 0) -> dict[str, Any]:
    """Parse a JSON object: a whole file or one line of it.

    Raises:
        DataError: The text is not a JSON object.
    """
    where = f"line {line}: " if line else ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"{where}{reason(error)}") from error
    if not isinstance(value, dict):
        raise unreadable(path, f"{where}it is not a JSON object")
    return value


def json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return (line, object) of each non-empty line.

    Raises:
        DataError: A line is not a JSON object.
    """
    lines = enumerate(read_text(path).split("\n"), 1)
    return [(number, json_object(path, line, number)) for number, line in lines if line.strip()]


def unreadable(path: Path, found: str) -> DataError:
    """Return the error for a list with invalid content."""
    return DataError(f"{path} cannot be read: {found}", "a list of recordings", "correct or re-create it")


def relative(path: str, folder: Path, root: Path) -> str:
    """Make a path, absolute or relative to a folder, relative to the root; unchanged if it lies outside."""
    if not path:
        return ""
    whole = os.path.normpath(folder / path)
    inside = os.path.relpath(whole, root.absolute())
    return path if inside.startswith("..") else PurePosixPath(inside).as_posix()


def class_name(value: object, names: dict[int, str]) -> str:
    """Return a class name; a number is looked up in ``names`` if there are any, and -1 means no class.

    Raises:
        KeyError: The number has no name.
    """
    text = "" if value is None else str(value).strip()
    if re.fullmatch(r"-?\d{1,9}", text):
        number = int(text)
        return "" if number == -1 else names[number] if names else str(number)
    return text


def modality_name(text: str, taken: Sequence[str]) -> str:
    """Turn a text into a valid and unused name of a file column."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")[:56] or "camera"
    name = name if re.fullmatch(MODALITY, name) else f"camera_{name}"[:56]
    return next(n for k in range(len(taken) + 1) if (n := name if k == 0 else f"{name}_{k}") not in taken)


def plain(value: object) -> str:
    """Text of a cell; empty for values that are not plain."""
    return "" if value is None or isinstance(value, (dict, list, tuple, bytes)) else str(value).strip()
