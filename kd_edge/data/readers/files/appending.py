"""Append rows to a manifest that a user, a spreadsheet or the labelling page may change in between.

Nothing is cached: the columns, their order and the delimiter are read again each time.
"""

from __future__ import annotations

import codecs
import csv
import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kd_edge.data.readers.files.rows import MOST_BYTES, csv_records, delimiter_of
from kd_edge.errors import DataError, reason
from kd_edge.files import held, replacing
from kd_edge.reading import open_regular, read_bytes

LOCK = ".manifest.lock"
"""Lock file next to a manifest; every writer holds it while writing."""
LOCK_SECONDS = 10.0
"""How long a writer waits for another one; writing a large table takes a second."""
APPENDING = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags for opening a manifest to append to it; links are not followed."""


@contextmanager
def written_alone(manifest: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Lock a manifest while it is read and written, so that no other writer changes it in between.

    Args:
        manifest: Path of the manifest; its folder must exist, the file need not.
        seconds: How long to wait for another writer.

    Raises:
        DataError: Another writer held the lock all that time.
        OSError: The folder is not writable.
    """
    with held(manifest.with_name(LOCK), lambda: None, seconds=seconds) as is_held:
        if not is_held:
            raise DataError(
                f"{manifest} has been locked by another program for {seconds:.0f} s",
                "a writer that takes a moment",
                f"end that program; if none is running, remove {manifest.with_name(LOCK)}",
            )
        yield


def append_rows(manifest: Path, rows: Sequence[Mapping[str, str]], wanted: Sequence[str] = ()) -> None:
    """Append rows to a manifest, matched by column name, all or none. Call it inside ``written_alone``.

    Args:
        manifest: ``manifest.csv``.
        rows: Cells by column; cells of columns that the manifest lacks are dropped.
        wanted: Columns to add if missing; ``id`` and ``label`` must exist.

    Raises:
        OSError: Writing failed; the manifest's rows are unchanged.
        DataError: The manifest is not a table in UTF-8, lacks a column ``id`` or ``label``, or has an open quote that
            would swallow the new rows.
    """
    check_rows(manifest)
    complete(manifest, wanted)
    content = table_text(manifest)
    text = io.StringIO(newline="")
    csv.DictWriter(
        text, columns_of(content), extrasaction="ignore", lineterminator="\n", delimiter=delimiter_of(content)
    ).writerows(rows)
    with os.fdopen(os.open(manifest, APPENDING), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        is_whole = size == 0 or (file.seek(-1, os.SEEK_END) >= 0 and file.read(1) == b"\n")
        added = (b"" if is_whole else b"\n") + text.getvalue().encode("utf-8", "replace")
        try:
            if file.write(added) != len(added):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except BaseException:  # also on an interrupt, after which the caller appends the rows again
            os.ftruncate(file.fileno(), size)
            raise


def complete(manifest: Path, wanted: Sequence[str]) -> None:
    """Append missing columns to a manifest that another program has written.

    Raises:
        DataError: The manifest is not a table, lacks a column ``id`` or ``label``, or cannot be written.
        OSError: It is a link, or cannot be read.
    """
    content = table_text(manifest)
    columns = columns_of(content)
    if missing := [name for name in ("id", "label") if name not in columns]:
        raise DataError(
            f"{manifest} has no column {' and no column '.join(missing)}",
            f"a table whose first line contains the names {','.join(wanted or ('id', 'label'))}",
            "correct it",
        )
    if missing := [name for name in wanted if name not in columns]:
        check_rows(manifest)
        head, *lines = lines_of(content)
        os.close(os.open(manifest, APPENDING))  # fails for a link, which would be replaced by a plain file
        write_lines(manifest, [[*head, *missing], *lines], delimiter_of(content))


def write_lines(manifest: Path, lines: Iterable[Sequence[str]], delimiter: str = ",") -> None:
    """Write a whole table atomically, column names first, keeping the file's permissions and byte-order mark.

    Raises:
        DataError: Writing failed.
    """
    mode, mark = _kept(manifest)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", delimiter=delimiter).writerows(lines)
    with replacing(manifest, DataError, mode=mode) as file:
        file.write(mark + text.getvalue().encode("utf-8"))


def _kept(manifest: Path) -> tuple[int, bytes]:
    """Permissions and UTF-8 byte-order mark (used by spreadsheets) of a manifest; defaults for a new one."""
    try:
        with open_regular(manifest) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            return mode, codecs.BOM_UTF8 if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else b""
    except FileNotFoundError:
        return 0o644, b""
    except OSError as error:
        raise DataError(
            f"{manifest} cannot be read ({error.strerror})", "a readable plain file", "correct it"
        ) from error


def check_rows(manifest: Path) -> None:
    """Raise a DataError if a manifest is not a table, or has an open quote that would swallow appended rows."""
    for _ in csv_records(manifest, table_text(manifest), strict=True):
        pass


def table_text(manifest: Path) -> str:
    """Read the text of a manifest.

    Raises:
        DataError: The file is too large, or not in UTF-8.
    """
    try:
        return read_bytes(manifest, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{manifest} cannot be read: {reason(error)}",
            "a table in UTF-8",
            "save it as UTF-8, in a spreadsheet as 'CSV UTF-8'",
        ) from error


def columns_of(table: str) -> list[str]:
    """Names of the columns, stripped."""
    return [name.strip() for name in next(lines_of(table), [])]


def lines_of(table: str) -> Iterator[list[str]]:
    """Iterate over the lines of a manifest; the first contains the column names."""
    return csv.reader(io.StringIO(table, newline=""), delimiter=delimiter_of(table))
