"""Recordings with their labelled pieces, as rows of the manifest, and descriptions of pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from kd_edge.data.readers.files.rows import Row, Table
from kd_edge.errors import printable


@dataclass(frozen=True)
class Recording:
    """Files recorded together, and their rows.

    Attributes:
        name: Of its first file, without the ending.
        rows: All rows of these files, in their order: labelled pieces, or one row without a label and without bounds.
    """

    name: str
    rows: tuple[Row, ...]

    @property
    def pieces(self) -> tuple[Row, ...]:
        """The pieces: all rows except those that only list the recording."""
        return tuple(sorted((row for row in self.rows if not is_bare(row)), key=lambda row: row.start_s))

    @property
    def subject(self) -> str:
        """Subject of the first row."""
        return self.rows[0].subject


def is_bare(row: Row) -> bool:
    """Whether a row only lists a recording, without a label."""
    return not row.label and row.start_s == 0.0 and row.end_s is None


def recordings_of(table: Table) -> Iterator[Recording]:
    """Group rows of the same files at the same offsets, in the order of their first rows."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in table.rows:
        key = (frozenset(row.files.items()), frozenset(row.offsets_s.items()), row.view)
        groups.setdefault(key, []).append(row)
    for rows in groups.values():
        yield Recording(stem(rows[0]), tuple(rows))


def as_written(recordings: Sequence[Recording]) -> Iterator[Row]:
    """All rows in the order to be written: old ones in place, new ones after the others of their recording."""
    placed = []
    for recording in recordings:
        last = max(row.line for row in recording.rows)
        placed += [(row.line or last, row) for row in recording.rows]
    yield from (row for _, row in sorted(placed, key=lambda one: one[0]))


def in_time(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows sorted by start."""
    return tuple(sorted(rows, key=lambda row: row.start_s))


def overlap(one: Row, other: Row) -> bool:
    """Whether two pieces overlap."""
    return (other.end_s is None or one.start_s < other.end_s) and (one.end_s is None or other.start_s < one.end_s)


def stem(row: Row) -> str:
    """The name of a row's first file, without the ending."""
    first: PurePosixPath = next(iter(row.files.values()))
    return printable(str(first.with_suffix("")))


def said_of(row: Row) -> str:
    """Description of a piece: its label, start and end."""
    end = "the end" if row.end_s is None else f"{row.end_s:.2f} s"
    return f"{row.label or 'unlabelled'} ({row.start_s:.2f} s to {end})"


def difference(old: Row, new: Row) -> str:
    """Description of a change of a piece; empty if label, start and end are unchanged."""
    if old.label != new.label:
        return f" to {new.label}"
    if (old.start_s, old.end_s) != (new.start_s, new.end_s):
        end = "the end" if new.end_s is None else f"{new.end_s:.2f} s"
        return f" to {new.start_s:.2f} s to {end}"
    return ""
