"""ActivityNet's JSON: labelled pieces of long videos, by video name."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kd_edge.data.readers.files.folders import MOST_FILES
from kd_edge.data.readers.files.imports.found import SIDES, Found, Wanted, read_object, unreadable
from kd_edge.data.readers.files.media import ENDINGS
from kd_edge.data.readers.files.rows import Cells
from kd_edge.errors import DataError, printable


def read_activitynet(path: Path, wanted: Wanted) -> Found:
    """Read ``{"database": {VIDEO: {"subset", "duration", "annotations": [{"label", "segment": [start, end]}]}}}``.

    Without ``database`` the videos are at the top level, as written by mmaction2. A video is a file named ``VIDEO`` or
    ``v_VIDEO`` anywhere below the folder. Pieces are clipped to the end of their video; videos without annotations,
    such as those of a hidden test side, are left out.

    Raises:
        DataError: The file has another format, or two files have the name of a video.
    """
    whole = read_object(path)
    videos = whole.get("database", whole)
    if not isinstance(videos, dict) or not all(isinstance(video, dict) for video in videos.values()):
        raise unreadable(path, "'database' is not an object of videos")
    files = _by_name(wanted.root)
    cells: list[Cells] = []
    empty = 0
    for name, video in videos.items():
        pieces = video.get("annotations") or []
        if not isinstance(pieces, list):
            raise unreadable(path, f"video {printable(name)}: 'annotations' is not a list")
        empty += not pieces
        file = files.get(name) or files.get(f"v_{name}") or [PurePosixPath(f"{name}.mp4")]
        if pieces and len(file) > 1:
            raise DataError(
                f"{wanted.root} has {printable(str(file[0]))} and {printable(str(file[1]))}",
                f"one file for the video {printable(name)}",
                "name a smaller folder with --root",
            )
        length = _length(path, name, video) if pieces else math.inf
        common = {wanted.modality: str(file[0]), "split": SIDES.get(str(video.get("subset", "")).lower(), "")}
        for piece in pieces:
            start, end, label = _piece(path, name, piece)
            if start < length < end:
                end = length
            cells.append((len(cells) + 1, {**common, "label": label, "start_s": repr(start), "end_s": repr(end)}))
    if not cells:
        raise unreadable(path, "no video in it has annotations")
    remarks = [f"videos without annotations, left out: {empty}"] if empty else []
    return Found("ActivityNet's annotations", path, cells, (wanted.modality,), remarks)


def _length(path: Path, name: str, video: Mapping[str, Any]) -> float:
    """Duration of a video in seconds, given as a number or its text; infinite if missing."""
    duration = video.get("duration", video.get("duration_second"))
    if duration is None:
        return math.inf
    try:
        length = float(duration)
    except (TypeError, ValueError, OverflowError):
        length = math.nan
    if not 0 < length < math.inf:
        raise unreadable(
            path, f"video {printable(name)}: duration '{printable(str(duration)[:40])}' is not a number of seconds"
        )
    return length


def _piece(path: Path, name: str, piece: Any) -> tuple[float, float, str]:
    try:
        start, end = map(float, piece["segment"])
        return start, end, str(piece["label"])
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise unreadable(path, f"video {printable(name)}: an annotation without label and segment") from error


def _by_name(root: Path) -> dict[str, list[PurePosixPath]]:
    """Recordings below a folder by name without suffix, and folders by name."""
    found = defaultdict[str, list[PurePosixPath]](list)
    count = 0
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        count += len(names) + len(folders)
        if count > MOST_FILES:
            raise DataError(f"{root} contains more than {MOST_FILES:,} files", "recordings", "name a smaller folder")
        here = PurePosixPath(Path(place).relative_to(root).as_posix())
        for folder in folders:
            found[folder].append(here / folder)
        for name in sorted(names):
            if PurePosixPath(name).suffix.lower() in ENDINGS and not name.startswith("."):
                found[PurePosixPath(name).stem].append(here / name)
    return found
