"""Files of PKU-MMD: their locations, the labels of a long video, the split protocols."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kd_edge.data.dataset import ActionInterval
from kd_edge.data.readers.kinect import MODALITIES, held, walk
from kd_edge.errors import DataError

LAYOUT = "Data/RGB_VIDEO/0002-L.avi, Data/IR_VIDEO/0002-L-infrared.avi and Label/0002-L.txt"
"""Layout of the data set, for errors."""

_VIDEO = re.compile(r"\d{4}-[LMR]")
_VIDEO_FILE = re.compile(r"(\d{4}-[LMR])(-infrared)?\.avi", re.IGNORECASE)
_LABEL_FILE = re.compile(r"(\d{4}-[LMR])\.(txt|label)", re.IGNORECASE)
_SPLIT_FILE = re.compile(r"cross[-_ ](subject|view)\.txt", re.IGNORECASE)
_PICTURES = re.compile(r"\d{4}-[LMR].*", re.IGNORECASE)  # folders with thousands of single frames, not read here
_HEADING = re.compile(r"(train|vali|test)\w* videos?\s*:?", re.IGNORECASE)  # the official files say "Validataion"


class Files(NamedTuple):
    """Files of a copy of the data set.

    Attributes:
        videos: Modality -> name of the long video (``0002-L``) -> its file.
        labels: Name of the long video -> its labels file.
        splits: ``cross_subject`` or ``cross_view`` -> its file, if present.
        skeletons: Name of the long video -> its skeletons, if present.
    """

    videos: dict[str, dict[str, Path]]
    labels: dict[str, Path]
    splits: dict[str, Path]
    skeletons: dict[str, Path]


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels file of one long video.

    Attributes:
        actions: One interval per row, in the order of the file.
        reversed_rows: Line numbers (1-based) with start after end; both are swapped in ``actions``.
    """

    actions: tuple[ActionInterval, ...]
    reversed_rows: tuple[int, ...]


def find_files(root: Path) -> Files:
    """Find the files of the data set below a folder, whatever the names of the folders in between.

    Labels files are in a folder with ``label`` in its name (``Label``, ``Train_Label_PKU_final``), skeletons under the
    same file names in one with ``skel`` (``Skeleton``, ``PKU_Skeleton_Renew``). Of duplicates the first in alphabetical
    order is used.

    Raises:
        DataError: The folder is missing, or contains no video or no labels file.
    """
    found = Files({modality: {} for modality in MODALITIES}, {}, {}, {})
    for path in walk(root, f"the folder of PKU-MMD, with {LAYOUT}", _PICTURES):
        if match := _VIDEO_FILE.fullmatch(path.name):
            infrared = match[2] or path.parent.name.upper().startswith("IR")
            found.videos["ir" if infrared else "rgb"].setdefault(match[1].upper(), path)
        elif match := _SPLIT_FILE.fullmatch(path.name):
            found.splits.setdefault(f"cross_{match[1].lower()}", path)
        elif match := _LABEL_FILE.fullmatch(path.name):
            if "label" in path.parent.name.lower():
                found.labels.setdefault(match[1].upper(), path)
            elif "skel" in path.parent.name.lower():
                found.skeletons.setdefault(match[1].upper(), path)
    if not found.labels or not any(found.videos.values()):
        what = "labels file" if any(found.videos.values()) else "video"
        raise DataError(
            f"no PKU-MMD {what} in {root} (it contains {held(root)})",
            LAYOUT,
            "give the data set's own folder as --data, or one that contains it as pku-mmd/",
        )
    return found


def read_labels(path: Path, classes: int) -> Labels:
    """Read rows ``action,start,end,confidence``; the confidence is optional, blank lines are skipped.

    Actions count from 1. Start and end are read as frame numbers from 0, both inclusive, as in published readers; the
    data set's pages do not specify it.

    Args:
        path: The file.
        classes: Number of actions.

    Raises:
        DataError: A row is invalid; the message names file and line.
    """
    actions, reversed_rows = [], []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split(",")]
        try:
            action, start, end = (int(field) for field in fields[:3])
        except ValueError as error:
            raise _wrong(path, number, f"'{line.strip()}'", "action,start,end,confidence in whole numbers") from error
        if not 1 <= action <= classes:
            raise _wrong(path, number, f"action {action}", f"1 to {classes}")
        if min(start, end) < 0:
            raise _wrong(path, number, f"frames {start} to {end}", "frame numbers from 0 on")
        if start > end:
            reversed_rows.append(number)
        actions.append(ActionInterval(action - 1, min(start, end), max(start, end)))
    return Labels(tuple(actions), tuple(reversed_rows))


def read_split(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read a protocol: a heading ``Training videos:``, names with commas, ``Validataion videos:``, names.

    The official files spell the second heading this way; any word that begins with ``vali`` or ``test`` is accepted.

    Args:
        path: The file; names may extend over several lines and end in a comma.

    Returns:
        Names of the training and of the test videos, each in the order of the file.

    Raises:
        DataError: A name is invalid or has no heading before it, or a side is empty; the message names file and line.
    """
    sides: dict[str, list[str]] = {"train": [], "test": []}
    side: list[str] | None = None
    for number, line in enumerate(_lines(path), 1):
        rest = line.strip()
        heading = _HEADING.match(rest)
        if heading is not None:
            side = sides["train" if heading[1].lower() == "train" else "test"]
            rest = rest[heading.end() :]
        for name in filter(None, re.split(r"[,\s]+", rest)):
            if side is None or not _VIDEO.fullmatch(name.upper()):
                raise _wrong(path, number, f"'{name}'", "a heading 'Training videos:', then names like 0002-L")
            side.append(name.upper())
    for name, heading_text in (("train", "Training videos:"), ("test", "Validation videos:")):
        if not sides[name]:
            raise DataError(f"{path} has no video below '{heading_text}'", "at least one", "fetch this file again")
    return tuple(sides["train"]), tuple(sides["test"])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error})", "a text file", "fetch this file again") from error


def _wrong(path: Path, line: int, found: str, expected: str) -> DataError:
    return DataError(f"{path}, line {line}: {found}", expected, "correct the line, or fetch this file again")
