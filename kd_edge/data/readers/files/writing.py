"""Write the manifest of a folder of recordings so that it reads back unchanged."""

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
"""Lock file (``kd_edge.files.held``), held while ``kd-edge record`` adds rows to the folder's manifest."""


def write_manifest(rows: Sequence[Row], path: Path, *, force: bool = False) -> None:
    """Write ``manifest.csv``; ``read_manifest`` returns the same rows.

    The columns are ``COLUMNS``, one file column for each modality in order of occurrence, its ``_offset_s`` column if
    any row has one, and the columns of the rows' notes. File names may contain any characters or bytes; other texts are
    stripped.

    Args:
        rows: Rows to write, in this order; paths are relative to the folder of ``path``.
        path: Output file, written atomically.
        force: Overwrite an existing manifest.

    Raises:
        DataError: A manifest exists already, a modality has the name of another column, or writing fails.
    """
    check_no_manifest(path, force=force)
    with replacing(path, DataError) as file:
        file.write(manifest_bytes(rows, path))


def manifest_bytes(rows: Sequence[Row], path: Path) -> bytes:
    """Return the content that ``write_manifest`` writes; for ``manifest.jsonl``, one line of JSON per row.

    Raises:
        DataError: A modality has the name of another column, or the rows cannot be encoded.
    """
    try:
        text = _json_text(rows) if path.suffix == ".jsonl" else _text(rows, path)
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:  # JSON can encode a lone surrogate
        found = printable(error.object[error.start : error.end])
        raise DataError(f"'{found}' in a row of {path}", "whole characters", "correct it") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{path} would take {len(content):,} bytes", f"at most {MOST_BYTES:,}", "name fewer rows")
    return content


def check_no_manifest(path: Path, *, force: bool = False) -> None:
    """Check that a manifest may be written, so that callers can fail before searching a folder.

    Raises:
        DataError: A manifest exists and ``force`` is not set, or one in the other format exists.
    """
    for name in NAMES:
        existing = path.with_name(name)
        if os.path.lexists(existing) and not (force and name == path.name):
            fix = "overwrite it with --force" if name == path.name else "remove it"
            raise DataError(f"{existing} exists already", "a folder without a manifest", fix)


def _json_text(rows: Sequence[Row]) -> str:
    """One line per row with its non-empty cells; the label is always included."""
    records = ({"label": "", **{name: cell for name, cell in _cells(row) if cell}} for row in rows)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _text(rows: Sequence[Row], path: Path) -> str:
    modalities = list(dict.fromkeys(name for row in rows for name in row.files))
    offsets = [name + OFFSET for name in modalities if any(name in row.offsets_s for row in rows)]
    others = list(dict.fromkeys(name for row in rows for name in row.notes))
    columns = [*COLUMNS, *modalities, *offsets, *others]
    if duplicates := [name for name in columns if columns.count(name) > 1]:
        raise DataError(
            f"modality '{printable(duplicates[0])}' has the name of another column of {path}",
            "modality names that differ from the other columns",
            "rename the modality",
        )
    lines = [columns, *([cells.get(name, "") for name in columns] for cells in map(dict, map(_cells, rows)))]
    # A carriage return in a file name survives only inside quotes.
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
    """A path whose leading and trailing blanks survive the stripping of cells."""
    text = str(file)
    return f"./{text}{'/.' if text != text.rstrip() else ''}" if text != text.strip() else text


def _exact(seconds: float) -> str:
    """The shortest text that parses to the same number."""
    return f"{seconds:.0f}" if seconds.is_integer() else repr(seconds)
