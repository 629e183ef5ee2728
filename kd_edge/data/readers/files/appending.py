"""Add rows to the table of recordings while its owner, a spreadsheet or the labelling page may change it between two.

Nothing is remembered of the table: its columns, their order and what parts them are read again each time.
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
"""Beside a manifest; held for the moment that it takes to write it, by whoever does."""
LOCK_SECONDS = 10.0
"""How long a writer waits for another one: the whole of a large table takes a second."""
APPENDING = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a manifest is opened to add to it: never through a link."""


@contextmanager
def written_alone(manifest: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a manifest while it is written: what is read inside is what is written to.

    Args:
        manifest: It need not be there yet; its folder must.
        seconds: How long another writer is waited for.

    Raises:
        DataError: Another one held it all that time.
        OSError: Its folder cannot be written.
    """
    with held(manifest.with_name(LOCK), lambda: None, seconds=seconds) as is_held:
        if not is_held:
            raise DataError(
                f"{manifest} has been written by another program for {seconds:.0f} s",
                "one that takes a moment",
                f"end it; where there is none any more, remove {manifest.with_name(LOCK)}",
            )
        yield


def append_rows(manifest: Path, rows: Sequence[Mapping[str, str]], wanted: Sequence[str] = ()) -> None:
    """Write rows behind those of a manifest by the names of its columns, all or none; call it in ``written_alone``.

    Args:
        manifest: ``manifest.csv``.
        rows: Cell by column; of columns that are not there nothing is written.
        wanted: Columns that are made where they are missing; ``id`` and ``label`` must be there.

    Raises:
        OSError: They cannot be written; the manifest's rows are as they were.
        DataError: It is no table in UTF-8, has no column ``id`` or ``label``, or an open quote would swallow them.
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
        except BaseException:  # an interrupt, too: who was interrupted adds them again
            os.ftruncate(file.fileno(), size)
            raise


def complete(manifest: Path, wanted: Sequence[str]) -> None:
    """Give a manifest that another program has written the columns it lacks, behind its own.

    Raises:
        DataError: It is no table, has no column ``id`` or ``label``, or cannot be written.
        OSError: It is a link, or cannot be read.
    """
    content = table_text(manifest)
    columns = columns_of(content)
    if missing := [name for name in ("id", "label") if name not in columns]:
        raise DataError(
            f"{manifest} has no column {' and no column '.join(missing)}",
            f"a table whose first line has the names {','.join(wanted or ('id', 'label'))}",
            "correct it",
        )
    if missing := [name for name in wanted if name not in columns]:
        check_rows(manifest)
        head, *lines = lines_of(content)
        os.close(os.open(manifest, APPENDING))  # else a plain file would take a link's place
        write_lines(manifest, [[*head, *missing], *lines], delimiter_of(content))


def write_lines(manifest: Path, lines: Iterable[Sequence[str]], delimiter: str = ",") -> None:
    """Write a whole table, its columns' names first, or nothing; who may read it, and its mark of UTF-8, stay.

    Raises:
        DataError: It cannot be written.
    """
    mode, mark = _kept(manifest)
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", delimiter=delimiter).writerows(lines)
    with replacing(manifest, DataError, mode=mode) as file:
        file.write(mark + text.getvalue().encode("utf-8"))


def _kept(manifest: Path) -> tuple[int, bytes]:
    """Rights of a manifest, and the mark at its beginning by which spreadsheets know UTF-8; those of a new one."""
    try:
        with open_regular(manifest) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            return mode, codecs.BOM_UTF8 if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else b""
    except FileNotFoundError:
        return 0o644, b""
    except OSError as error:
        raise DataError(
            f"{manifest} cannot be read ({error.strerror})", "a plain file that may be read", "correct it"
        ) from error


def check_rows(manifest: Path) -> None:
    """Raise a DataError where a manifest is no table, or has an open quote that would swallow what is added."""
    for _ in csv_records(manifest, table_text(manifest), strict=True):
        pass


def table_text(manifest: Path) -> str:
    """What a manifest holds.

    Raises:
        DataError: It is too large, or not in UTF-8.
    """
    try:
        return read_bytes(manifest, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{manifest} cannot be read: {reason(error)}",
            "a table in UTF-8",
            "save it as such, in a spreadsheet as 'CSV UTF-8'",
        ) from error


def columns_of(table: str) -> list[str]:
    """Names of the columns, without blanks around them."""
    return [name.strip() for name in next(lines_of(table), [])]


def lines_of(table: str) -> Iterator[list[str]]:
    """Lines of a manifest, with the names of its columns first."""
    return csv.reader(io.StringIO(table, newline=""), delimiter=delimiter_of(table))
