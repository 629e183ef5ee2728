"""Tables with a header: Hugging Face's ``metadata.csv``, ``.jsonl`` and ``.parquet``, and similar ones."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from kd_edge.data.readers.files.imports.found import (
    SIDES,
    Found,
    Wanted,
    class_name,
    json_lines,
    modality_name,
    plain,
    read_text,
    relative,
    unreadable,
)
from kd_edge.data.readers.files.imports.lists import side_of
from kd_edge.data.readers.files.imports.parquet import read_columns
from kd_edge.data.readers.files.rows import COLUMNS, MOST_ROWS, Cells
from kd_edge.errors import DataError, printable, reason

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILES = ("file_name", "filename", "file", "filepath", "file_path", "path", "video", "video_path", "video_name", "clip")
"""Usual names of file columns."""
LABELS = ("label", "class", "action", "category", "class_name", "label_name")
_SUFFIX = "_file_name"
_SEPARATORS = ",;\t"
_NESTED = (list, dict, bytes)


def header_of(path: Path) -> list[str]:
    """Return the column names of a text table; empty if its first line is not the header of a table of files."""
    line = read_text(path).partition("\n")[0].strip()
    names = [name.strip().strip('"') for name in re.split(f"[{_SEPARATORS}]", line)]
    return names if len(names) > 1 and any(map(_is_file_column, names)) else []


def read_table(path: Path, wanted: Wanted) -> Found:
    """Read a table with one row per recording: files, class and further columns of a manifest.

    ``file_name`` is a file, and ``NAME_file_name`` that of modality NAME. The class is in ``label``, ``class``,
    ``action`` or ``category``, or in the given column; without any it is the file's folder. Files of a ``metadata``
    table are relative to it, and its folder ``train``, ``validation`` or ``test`` is their side.

    Raises:
        DataError: The table cannot be read, or has no column of files or of classes.
        MissingExtraError: A Parquet file needs pyarrow, which is not installed.
    """
    raw, names = _records(path)
    records = [(line, {k.strip(): v for k, v in record.items() if k.strip()}) for line, record in raw]
    if len(records) > MOST_ROWS:
        raise unreadable(path, f"more than {MOST_ROWS:,} rows")
    columns = list(dict.fromkeys(column for _, record in records for column in record))
    files = _file_columns(path, columns, wanted)
    label = _label_column(path, columns, wanted)
    is_metadata = path.name in METADATA
    base = path.parent if is_metadata else wanted.root
    if is_metadata:
        side = side_of(path.parent.name) if path.parent.absolute() != wanted.root.absolute() else ""
    else:
        side = side_of(path.stem)
    read = {*files, label}
    cells: list[Cells] = []
    for line, record in records:
        paths = {files[column]: relative(plain(record.get(column)), base, wanted.root) for column in files}
        try:
            known = wanted.names or names.get(label, {})
            name = class_name(record.get(label), known) if label else _folder(record, files)
        except KeyError as error:
            raise unreadable(path, f"line {line}: no name for label {error}") from error
        others = {k: plain(v) for k, v in record.items() if k not in read and not isinstance(v, _NESTED)}
        cells.append((line, {"split": side, **others, **paths, "label": name}))
    if not label and not any(record["label"] for _, record in cells):
        raise DataError(f"{path} has the columns {_listed(columns)}", "a column of classes", "name it with --label")
    kind = "VideoFolder metadata" if is_metadata else "a table of recordings"
    return Found(kind, path, cells, tuple(files.values()), _remarks(records, columns))


def _records(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], dict[str, dict[int, str]]]:
    """(line, cells) of each row, and class names by column and number, if stored in the file."""
    if path.suffix == ".jsonl":
        return json_lines(path), {}
    if path.suffix == ".parquet":
        rows, metadata = read_columns(path)
        return list(enumerate(rows, 1)), _class_names(metadata)
    text = read_text(path)
    separator = max(_SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, restkey="")
    try:
        found = [(reader.line_num, {k: v for k, v in row.items() if k}) for row in reader]
    except csv.Error as error:
        raise unreadable(path, f"line {reader.line_num}: {reason(error)}") from error
    return found, {}


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, dict[int, str]]:
    """Class names by column and number, as Hugging Face stores them in the metadata of a Parquet file."""
    names: dict[str, dict[int, str]] = {}
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        for column, feature in json.loads(metadata[b"huggingface"])["info"]["features"].items():
            if feature.get("_type") == "ClassLabel":
                names[column] = dict(enumerate(map(str, feature["names"])))
    return names


def _is_file_column(name: str) -> bool:
    return name.lower() in FILES or name.endswith(_SUFFIX)


def _file_columns(path: Path, columns: Sequence[str], wanted: Wanted) -> dict[str, str]:
    """File column -> modality; a column not named after a modality gets the one of the options."""
    unnamed = [c for c in columns if c.lower() in FILES]
    first = min(unnamed, key=lambda c: FILES.index(c.lower()), default=None)
    found = {} if first is None else {first: wanted.modality}
    for column in columns:
        if column.endswith(_SUFFIX):
            found[column] = modality_name(column.removesuffix(_SUFFIX), (*found.values(), *COLUMNS))
    if not found:
        raise DataError(
            f"{path} has the columns {_listed(columns)}",
            "a column of files, for example file_name",
            "rename the column",
        )
    return found


def _label_column(path: Path, columns: Sequence[str], wanted: Wanted) -> str:
    """The column of classes; empty if folders are the classes."""
    if wanted.label is not None:
        if wanted.label not in columns:
            raise DataError(f"{path} has the columns {_listed(columns)}", f"'{wanted.label}'", "correct --label")
        return wanted.label
    return next((c for known in LABELS for c in columns if c.lower() == known), "")


def _folder(record: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The class: the folder of the first file."""
    first = next((text for column in files if (text := plain(record.get(column)))), "")
    folders = [part for part in PurePosixPath(first).parts[:-1] if part.lower() not in SIDES]
    return folders[-1] if folders else ""


def _remarks(records: Sequence[tuple[int, Mapping[str, Any]]], columns: Sequence[str]) -> list[str]:
    nested = [c for c in columns if any(isinstance(r.get(c), _NESTED) for _, r in records)]
    return [f"columns of lists or tables, left out: {_listed(nested)}"] if nested else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:12]) + (" ..." if len(names) > 12 else "") or "of nothing"
