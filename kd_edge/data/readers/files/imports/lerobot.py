"""LeRobot data sets, formats 2.0, 2.1 and 3.0: a task is a class, an episode a clip, each camera a modality."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kd_edge.data.readers.files.imports.found import (
    SIDES,
    Found,
    Wanted,
    json_lines,
    modality_name,
    read_object,
    unreadable,
)
from kd_edge.data.readers.files.imports.parquet import columns_of, read_columns
from kd_edge.data.readers.files.rows import COLUMNS, MOST_ROWS, Cells
from kd_edge.errors import DataError, printable

INFO = "meta/info.json"
_CAMERAS = ("observation.images.", "observation.")
_FIELD = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")


class _Camera(NamedTuple):
    """One camera: its key in the data set, and the modality it becomes."""

    key: str
    modality: str


class _Episode(NamedTuple):
    """One episode: its number, tasks, and each camera's piece: file, start and end in seconds."""

    number: int
    tasks: tuple[str, ...]
    pieces: Mapping[str, tuple[str, float, float | None]]


def read_lerobot(path: Path, wanted: Wanted) -> Found:
    """Read a data set by its ``meta/info.json``.

    In format 2 an episode has its own video of each camera; in format 3 it is a piece of a video shared by many
    episodes. Images stored in tables, features other than cameras, and episodes of several tasks are left out.

    Raises:
        DataError: The format is unknown, or a file of ``meta/`` is missing or invalid.
        MissingExtraError: Format 3 needs pyarrow, which is not installed.
    """
    info = read_object(path)
    version = str(info.get("codebase_version", ""))
    if not version.startswith(("v2.", "v3.")):
        raise DataError(
            f"{path} is of format '{printable(version[:20])}'",
            "v2.0, v2.1 or v3.0",
            "convert it with lerobot's scripts",
        )
    cameras = _cameras(path, info)
    if not cameras:
        raise unreadable(path, "it has no video feature; convert images stored in tables with lerobot")
    root = path.parent.parent
    read = _episodes_2 if version.startswith("v2.") else _episodes_3
    sides = _sides(info)
    cells: list[Cells] = []
    multi_task = 0
    for episode in read(root, path, info, cameras):
        multi_task += len(episode.tasks) != 1
        if len(episode.tasks) == 1:
            cells.append((episode.number, _cells(episode, cameras, sides)))
        if len(cells) > MOST_ROWS:
            raise unreadable(path, f"more than {MOST_ROWS:,} episodes")
    kind = f"a lerobot data set of format {printable(version[1:5])}"
    return Found(kind, path, cells, tuple(c.modality for c in cameras), _remarks(info, cameras, multi_task))


def _cells(episode: _Episode, cameras: list[_Camera], sides: dict[int, str]) -> dict[str, str]:
    """An episode's row, on the clock of the first camera's file."""
    found = {"id": f"episode_{episode.number:06d}", "label": episode.tasks[0], "split": sides.get(episode.number, "")}
    _, row_start, end = episode.pieces[cameras[0].modality]
    if end is not None:
        found |= {"start_s": repr(row_start), "end_s": repr(end)}
    for camera in cameras:
        file, start, _ = episode.pieces[camera.modality]
        found[camera.modality] = file
        if start != row_start:
            found[f"{camera.modality}_offset_s"] = repr(row_start - start)
    return found


def _cameras(path: Path, info: Mapping[str, Any]) -> list[_Camera]:
    cameras: list[_Camera] = []
    for key, feature in _features(path, info).items():
        if feature.get("dtype") == "video":
            name = next((key.removeprefix(p) for p in _CAMERAS if key.startswith(p)), key)
            cameras.append(_Camera(key, modality_name(name, (*COLUMNS, *(c.modality for c in cameras)))))
    return cameras


def _features(path: Path, info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(feature, dict) for feature in features.values()):
        raise unreadable(path, "'features' is not an object of objects")
    return features


def _episodes_2(root: Path, path: Path, info: Mapping[str, Any], cameras: list[_Camera]) -> Iterator[_Episode]:
    template = info.get("video_path") or "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    size = _whole(path, "chunks_size", info.get("chunks_size", 1000))
    listed = root / "meta/episodes.jsonl"
    for line, episode in json_lines(listed):
        number = _whole(listed, f"line {line}: episode_index", episode.get("episode_index"))
        fields = {"episode_index": number, "episode_chunk": number // max(1, size)}
        pieces = {c.modality: (_filled(path, template, fields | {"video_key": c.key}), 0.0, None) for c in cameras}
        yield _Episode(number, _tasks(listed, line, episode.get("tasks")), pieces)


def _episodes_3(root: Path, path: Path, info: Mapping[str, Any], cameras: list[_Camera]) -> Iterator[_Episode]:
    template = info.get("video_path") or "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    tables = sorted((root / "meta/episodes").glob("*/*.parquet"))
    if not tables:
        raise unreadable(path, "there is no meta/episodes/*/*.parquet next to it")
    wanted = {c: [f"videos/{c.key}/{f}" for f in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")]
              for c in cameras}  # fmt: skip
    columns = ["episode_index", "tasks", *(name for names in wanted.values() for name in names)]
    for table in tables:
        if missing := [name for name in columns if name not in columns_of(table)]:
            raise unreadable(table, f"it has no column '{printable(missing[0])}'")
        for line, row in enumerate(read_columns(table, columns)[0], 1):
            number = _whole(table, f"row {line}: episode_index", row["episode_index"])
            pieces = {}
            for camera, (chunk, file, start, end) in wanted.items():
                fields = {"video_key": camera.key, "chunk_index": row[chunk], "file_index": row[file]}
                if invalid := [name for name in (start, end) if not isinstance(row[name], (int, float))]:
                    raise unreadable(table, f"row {line}: {printable(invalid[0])} is not a number of seconds")
                pieces[camera.modality] = (_filled(table, template, fields), float(row[start]), float(row[end]))
            yield _Episode(number, _tasks(table, line, row["tasks"]), pieces)


def _filled(path: Path, template: object, fields: Mapping[str, Any]) -> str:
    """Fill in the fields of a path template; only the syntax that lerobot itself writes is supported."""

    def field(match: re.Match[str]) -> str:
        value = fields.get(match[1])
        if match[2] is None:
            return str(value)
        return f"{_whole(path, match[1], value):0{int(match[2])}d}"

    if not isinstance(template, str) or any(name not in fields for name, _ in _FIELD.findall(template)):
        shown = printable(str(template)[:80])
        raise unreadable(path, f"video_path '{shown}' has other fields than {', '.join(fields)}")
    return _FIELD.sub(field, template)


def _whole(path: Path, what: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31:
        return value
    raise unreadable(path, f"{what} is {printable(repr(value)[:40])}, not a whole number from 0")


def _tasks(path: Path, line: int, tasks: object) -> tuple[str, ...]:
    """Names of an episode's tasks, each once."""
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise unreadable(path, f"line {line}: 'tasks' is not a list of names")
    return tuple(dict.fromkeys(task.strip() for task in tasks))


def _sides(info: Mapping[str, Any]) -> dict[int, str]:
    """Episode -> side; empty if only the training side is named."""
    splits = info.get("splits")
    found: dict[int, str] = {}
    for name, span in splits.items() if isinstance(splits, dict) else ():
        match = re.fullmatch(r"(\d{1,7}):(\d{1,7})", str(span))
        if match and (side := SIDES.get(str(name).lower())):
            found |= dict.fromkeys(range(int(match[1]), min(int(match[2]), MOST_ROWS)), side)
    return found if set(found.values()) - {"train"} else {}


def _remarks(info: Mapping[str, Any], cameras: list[_Camera], multi_task: int) -> list[str]:
    remarks = [f"episodes of several tasks, left out: {multi_task}"] if multi_task else []
    features: dict[str, dict[str, Any]] = info["features"]
    own = ("timestamp", "frame_index", "episode_index", "index", "task_index")
    others = [key for key, feature in features.items() if feature.get("dtype") != "video" and key not in own]
    if others:
        remarks.append(f"features other than videos, left out: {', '.join(map(printable, others[:12]))}")
    for camera in cameras:
        details = {**(features[camera.key].get("info") or {}), **(features[camera.key].get("video_info") or {})}
        if details.get("video.is_depth_map") or details.get("is_depth_map"):
            remarks.append(f"{camera.modality} is depth: set band below [modality.{camera.modality}] in dataset.toml")
    return remarks
