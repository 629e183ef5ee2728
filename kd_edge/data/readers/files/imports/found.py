"""What every reader of a foreign list gives, and what they share."""

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
    """What the user says of a list.

    Attributes:
        root: The folder with the files.
        modality: Column of the files where the list does not tell.
        names: Class names, where the list has numbers: number -> name.
        label: Column with the class; None takes the usual ones.
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
        kind: What it is, for people.
        path: Where it stands.
        cells: Its rows, named as in a manifest.
        modalities: Columns with files.
        remarks: What of it was left out, and why.
    """

    kind: str
    path: Path
    cells: list[Cells]
    modalities: tuple[str, ...]
    remarks: list[str] = field(default_factory=list)


def read_text(path: Path) -> str:
    """A list's text; bytes that are no UTF-8 survive as they do in file names.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return read_bytes(path, MOST_BYTES).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise unreadable(path, error.strerror or reason(error)) from error


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object.

    Raises:
        DataError: It does not.
    """
    return json_object(path, read_text(path))


def json_object(path: Path, text: str, line: int = 0) -> dict[str, Any]:
    """A JSON object, the whole of a file or a line of it.

    Raises:
        DataError: It is none.
    """
    where = f"line {line}: " if line else ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, f"{where}{reason(error)}") from error
    if not isinstance(value, dict):
        raise unreadable(path, f"{where}it is no JSON object")
    return value


def json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line, object) of each line that is not empty.

    Raises:
        DataError: One is no JSON object.
    """
    lines = enumerate(read_text(path).split("\n"), 1)
    return [(number, json_object(path, line, number)) for number, line in lines if line.strip()]


def unreadable(path: Path, found: str) -> DataError:
    """What to raise of a list that is not what it seems."""
    return DataError(f"{path} cannot be read: {found}", "a list of recordings", "correct or re-create it")


def relative(path: str, folder: Path, root: Path) -> str:
    """A file that is named from a folder, or absolutely, as named from the root; unchanged where it lies outside."""
    if not path:
        return ""
    whole = os.path.normpath(folder / path)
    inside = os.path.relpath(whole, root.absolute())
    return path if inside.startswith("..") else PurePosixPath(inside).as_posix()


def class_name(value: object, names: dict[int, str]) -> str:
    """A class's name; of a number the one that the user's list has for it, of -1 none.

    Raises:
        KeyError: A number that the list has not.
    """
    text = "" if value is None else str(value).strip()
    if re.fullmatch(r"-?\d{1,9}", text):
        number = int(text)
        return "" if number == -1 else names[number] if names else str(number)
    return text


def modality_name(text: str, taken: Sequence[str]) -> str:
    """A name that a column of files may have, unlike those that are taken."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_-")[:56] or "camera"
    name = name if re.fullmatch(MODALITY, name) else f"camera_{name}"[:56]
    return next(n for k in range(len(taken) + 1) if (n := name if k == 0 else f"{name}_{k}") not in taken)


def plain(value: object) -> str:
    """A cell's text."""
    return "" if value is None or isinstance(value, (dict, list, tuple, bytes)) else str(value).strip()
