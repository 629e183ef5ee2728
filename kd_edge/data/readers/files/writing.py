"""Write the table of one's own recordings, so that it reads back as it was."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from kd_edge.data.readers.files.rows import COLUMNS, MOST_BYTES, NAMES, OFFSET, Row
from kd_edge.errors import DataError, printable
from kd_edge.files import replacing

RECORDER = ".record/lock"
"""Held (``kd_edge.files.held``) as long as ``kd-edge record`` adds rows to the folder's manifest."""


def write_manifest(rows: Sequence[Row], path: Path, *, force: bool = False) -> None:
    """Write ``manifest.csv``: what ``read_manifest`` makes of it is these rows again.

    Columns are those of ``COLUMNS``, one of files for each modality in the order they occur, its ``_offset_s`` where a
    row has one, and what else the rows bring along. File names may hold any characters or bytes; texts come without
    blanks around them.

    Args:
        rows: What to write, in this order; paths are relative to the folder of ``path``.
        path: The file; it appears whole or not at all.
        force: Take the place of a manifest that is there already.

    Raises:
        DataError: There is a manifest already, a modality is called like another column, or it cannot be written.
    """
    check_no_manifest(path, force=force)
    with replacing(path, DataError) as file:
        file.write(manifest_bytes(rows, path))


def manifest_bytes(rows: Sequence[Row], path: Path) -> bytes:
    """What ``write_manifest`` writes; of ``manifest.jsonl`` a line of JSON for each row.

    Raises:
        DataError: A modality is called like another column, or the rows cannot be written.
    """
    try:
        text = _json_text(rows) if path.suffix == ".jsonl" else _text(rows, path)
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:  # of JSON, which can spell half a character
        found = printable(error.object[error.start : error.end])
        raise DataError(f"'{found}' in a row of {path}", "whole characters", "correct it") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{path} would take {len(content):,} bytes", f"at most {MOST_BYTES:,}", "name fewer rows")
    return content


def check_no_manifest(path: Path, *, force: bool = False) -> None:
    """Make sure that a manifest may be written: to be asked before a folder is searched, not only after.

    Raises:
        DataError: There is one already, and it is not to be replaced; or one of the other kind, in any case.
    """
    for name in NAMES:
        there = path.with_name(name)
        if os.path.lexists(there) and not (force and name == path.name):
            fix = "--force writes it anew" if name == path.name else "remove it"
            raise DataError(f"there is a {there} already", "a folder without a manifest", fix)


def _json_text(rows: Sequence[Row]) -> str:
    """A line for each row: its cells that are not empty, and its label in any case."""
    records = ({"label": "", **{name: cell for name, cell in _cells(row) if cell}} for row in rows)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _text(rows: Sequence[Row], path: Path) -> str:
    modalities = list(dict.fromkeys(name for row in rows for name in row.files))
    late = [name + OFFSET for name in modalities if any(name in row.offsets_s for row in rows)]
    others = list(dict.fromkeys(name for row in rows for name in row.notes))
    columns = [*COLUMNS, *modalities, *late, *others]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise DataError(
            f"a modality called '{printable(twice[0])}' and a column of {path} of that name",
            "modalities with names of their own",
            "rename it",
        )
    lines = [columns, *([cells.get(name, "") for name in columns] for cells in map(dict, map(_cells, rows)))]
    # What a carriage return in a file's name means to a reader depends on the quotes around it.
    has_return = any("\r" in cell for line in lines for cell in line)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL).writerows(lines)
    return text.getvalue()


def _cells(row: Row) -> Iterator[tuple[str, str]]:
    yield from ((name, getattr(row, name)) for name in ("id", "label", "subject", "view", "trial", "split"))
    if row.start_s or row.end_s is not None:
        yield "start_s", _exact(row.start_s)
    if row.end_s is not None:
        yield "end_s", _exact(row.end_s)
    yield from ((name, _path(file)) for name, file in row.files.items())
    yield from ((name + OFFSET, _exact(value)) for name, value in row.offsets_s.items())
    yield from row.notes.items()


def _path(file: PurePosixPath) -> str:
    """A path whose blanks at either end are no blanks around a cell."""
    text = str(file)
    return f"./{text}{'/.' if text != text.rstrip() else ''}" if text != text.strip() else text


def _exact(seconds: float) -> str:
    """The shortest text that is read as the same number."""
    return f"{seconds:.0f}" if seconds.is_integer() else repr(seconds)
