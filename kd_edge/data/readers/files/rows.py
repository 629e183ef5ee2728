"""The table of your own recordings: one row per labelled piece, from ``manifest.csv`` or ``manifest.jsonl``."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from kd_edge.data.readers.files.media import ENDINGS
from kd_edge.data.readers.files.settings import MODALITY, is_modality
from kd_edge.errors import DataError, printable, reason
from kd_edge.reading import is_file, read_bytes

NAMES = ("manifest.csv", "manifest.jsonl")
COLUMNS = ("id", "label", "subject", "view", "trial", "split", "start_s", "end_s")
SESSION = "session"
"""Column with the time of recording; it is kept but not read."""
OFFSET = "_offset_s"
"""Suffix to a modality's name: the column with the offset at which its file begins."""
SIDES = ("", "train", "val", "test")
MOST_BYTES = 256_000_000
MOST_ROWS = 2_000_000
Cells = tuple[int, dict[str, str]]
"""A row as read: its line number, and its cells by column name."""
_FAULTS_SHOWN = 3
_STARTS, _ENDS = ("start", "begin", "from", "onset"), ("end", "stop", "to", "until", "offset")
_LONGEST_CELL, _LONGEST_LABEL = 4096, 200


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of a recording with its label and the files of its modalities.

    Attributes:
        id: Unique in the table.
        label: Class name; empty if not labelled yet.
        subject: The person who performs the action; empty if unknown.
        view: Camera position.
        trial: Number of the repetition.
        split: ``train``, ``val`` or ``test``; empty if the data set's rule decides.
        files: Path of each available modality, relative to the data set's folder.
        start_s: Start of the piece, in seconds of the recording.
        end_s: End of the piece; None for the end of the recording.
        offsets_s: Nonzero offsets of modalities' files from the piece's clock; positive if the file begins later.
        notes: Cells of columns that are not read; kept so that they can be written again.
        line: Line number in the manifest, for messages; 0 for rows read from folders.
    """

    id: str
    label: str
    files: Mapping[str, PurePosixPath]
    subject: str = ""
    view: str = ""
    trial: str = ""
    split: str = ""
    start_s: float = 0.0
    end_s: float | None = None
    offsets_s: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of a manifest or folder, with remarks.

    Attributes:
        rows: Rows in the order of the file.
        modalities: Names of the file columns, in order.
        remarks: Notes for the user: columns that are not read, rows without a label.
    """

    rows: tuple[Row, ...]
    modalities: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def manifest_of(root: Path) -> Path | None:
    """Return the path of a folder's manifest, or None if it has none.

    Raises:
        DataError: There are two manifests.
    """
    found = [root / name for name in NAMES if is_file(root / name)]
    if len(found) > 1:
        raise DataError(f"{root} has {' and '.join(NAMES)}", "one manifest", "remove one of them")
    return found[0] if found else None


def read_manifest(path: Path, known: Iterable[str] = (), *, links: bool = False) -> Table:
    """Read a manifest. The error counts all faults and quotes the first three.

    Args:
        path: ``manifest.csv`` or ``manifest.jsonl``; files are looked up in its folder.
        known: Modalities named in ``dataset.toml``, whose columns hold files.
        links: Whether symbolic links may lead out of the folder.

    Raises:
        DataError: The manifest cannot be read, or a row is invalid.
    """
    return table_of(path, list(_records(path)), path.parent, known, links=links)


def table_of(
    path: Path, cells: Sequence[Cells], root: Path, known: Iterable[str] = (), *, links: bool = False
) -> Table:
    """Build and check a table from the records of a manifest or another list.

    Args:
        path: File of the records, for messages.
        cells: (line, cells by column) of each row, with the column names of a manifest.
        root: Folder of the recordings.
        known: Columns that hold files, whatever their names.
        links: Whether symbolic links may lead out of the folder.

    Raises:
        DataError: A column is missing, or a row is invalid.
    """
    if not cells:
        raise DataError(f"{path} has no rows", "a row for each recording", "add them below the names of the columns")
    columns = list(dict.fromkeys(name for _, record in cells for name in record))
    if "label" not in columns:
        raise DataError(
            f"{path} has the columns {_listed(columns)}",
            "a column 'label' and a column of files for each modality (rgb, ir, ...)",
            "add them; the README shows a manifest",
        )
    modalities = _modalities(columns, cells, root, frozenset(known))
    if not modalities:
        raise DataError(f"{path} names no file", "a column of files, for example 'rgb'", "add one; paths are relative")
    faults: list[str] = []
    unread = _unread(columns, modalities)
    folder = Folder(root, links=links)
    found = (_row(line, record, modalities, unread, folder, faults) for line, record in cells)
    rows = tuple(row for row in found if row is not None)
    if clashes := list(_clashes(rows, _lines)):
        faults += [f"column {column} is not read{suggestion}" for column, suggestion in _time_like(unread)] + clashes
    if faults:
        raise _faulty(path, faults)
    return Table(rows, modalities, tuple(_remarks(unread, rows)))


def check_together(lists: Sequence[tuple[Path, Sequence[Row]]]) -> None:
    """Check that the rows of several lists, each valid by itself, do not conflict.

    Raises:
        DataError: Two rows conflict.
    """
    common = os.path.commonpath([path.parent for path, _ in lists])
    names = {id(row): printable(os.path.relpath(path, common)) for path, rows in lists for row in rows}

    def where(first: Row, second: Row) -> str:
        first_name, second_name = names[id(first)], names[id(second)]
        if first_name == second_name:
            return f"{first_name}, {_lines(first, second)}"
        return f"{first_name} line {first.line} and {second_name} line {second.line}"

    if faults := list(_clashes([row for _, rows in lists for row in rows], where)):
        raise _faulty(Path(common), faults)


class Folder:
    """Decides which files of a folder may be read.

    Args:
        root: The folder.
        links: Whether symbolic links may lead out of it.
    """

    def __init__(self, root: Path, *, links: bool) -> None:
        self._root, self._links = root, links
        self._real = os.path.realpath(root)
        self._parents: dict[PurePosixPath, bool] = {}

    def refuses(self, path: PurePosixPath) -> str:
        """Reason why a file may not be read, with placeholders ``{name}`` and ``{file}``; empty if it may."""
        if path.is_absolute() or ".." in path.parts:
            inside = path.is_absolute() and os.path.commonpath((self._root.absolute(), path)) == str(
                self._root.absolute()
            )
            return (
                "{name} '{file}' is absolute, not relative to the folder"
                if inside
                else "{name} '{file}' lies outside the folder"
            )
        if not path.name:
            return "{name} '{file}' is the folder itself"
        if not os.path.exists(self._root / path):  # noqa: PTH110 - False for overlong names
            slashes = "\\" in path.name and os.path.exists(self._root / str(path).replace("\\", "/"))  # noqa: PTH110
            return "no {name} file {file}" + (", but one with / instead of \\" if slashes else "")
        if self.leads_out(path):
            return "{name} '{file}' lies outside the folder, behind a link (allowed with links = true in dataset.toml)"
        return ""

    def leads_out(self, path: PurePosixPath) -> bool:
        """Whether links lead out of the folder although they must not; each parent is checked only once."""
        if self._links:
            return False
        if path.parent not in self._parents:
            self._parents[path.parent] = self._is_inside(path.parent)
        is_link = os.path.islink(self._root / path)  # noqa: PTH114 - as above
        return not (self._is_inside(path) if is_link else self._parents[path.parent])

    def _is_inside(self, path: PurePosixPath) -> bool:
        return os.path.commonpath((self._real, os.path.realpath(self._root / path))) == self._real


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _records(path: Path) -> Iterator[Cells]:
    """Yield (line, cells by column) of each non-empty row."""
    try:
        content = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise _unreadable(path, error.strerror or reason(error)) from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16", "UTF-8", "save it as UTF-8, in a spreadsheet as 'CSV UTF-8'")
    text = content.decode("utf-8-sig", "surrogateescape")
    reader = csv_records if path.suffix == ".csv" else _json_records
    for count, (line, record) in enumerate(reader(path, text)):
        if count >= MOST_ROWS:
            raise _unreadable(path, f"more than {MOST_ROWS:,} rows")
        if any(record.values()):
            yield line, record


def delimiter_of(text: str) -> str:
    """Return the delimiter of a table: the most frequent candidate in its first line."""
    return max(",;\t", key=text.partition("\n")[0].count)


def csv_records(path: Path, text: str, *, strict: bool = False) -> Iterator[Cells]:
    """Yield (line, cells by column) of each row of a table.

    Args:
        path: File of the table, for messages.
        text: Its content.
        strict: Whether quotes that are never closed, or closed inside a cell, are faults.

    Raises:
        DataError: The text is not a table, or a row has more cells than there are columns.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=strict)
    try:
        names = [name.strip() for name in next(reader, [])]
        if duplicates := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
            raise _unreadable(path, f"two columns are named '{printable(duplicates[0])}'")
        for cells in reader:
            if len(cells) > len(names):
                raise _unreadable(path, f"line {reader.line_num} has {len(cells)} cells for {len(names)} columns")
            yield reader.line_num, {n: c.strip() for n, c in zip(names, cells, strict=False) if n}
    except csv.Error as error:
        raise _unreadable(path, f"line {reader.line_num}: {reason(error)}") from error


def _json_records(path: Path, text: str) -> Iterator[Cells]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _unreadable(path, f"line {number}: {reason(error)}") from error
        if not isinstance(record, dict) or any(isinstance(v, (dict, list)) for v in record.values()):
            raise _unreadable(path, f"line {number} is not an object of plain values")
        yield number, {k.strip(): "" if v is None else str(v).strip() for k, v in record.items() if k.strip()}


def _modalities(columns: Sequence[str], cells: Sequence[Cells], root: Path, known: frozenset[str]) -> tuple[str, ...]:
    """Columns that hold files: recognised by their names, or because every cell is a file name."""

    def is_recording(cell: str) -> bool:
        return PurePosixPath(cell).suffix.lower() in ENDINGS or os.path.isdir(root / cell)  # noqa: PTH112

    others = [c for c in columns if c not in COLUMNS and not c.endswith(OFFSET)]
    filled: dict[str, list[str]] = {c: [r[c] for _, r in cells if r.get(c)] for c in others}
    named = (c for c in others if re.fullmatch(MODALITY, c))
    return tuple(c for c in named if filled[c] and (c in known or is_modality(c) or all(map(is_recording, filled[c]))))


def _row(
    line: int,
    record: Mapping[str, str],
    modalities: Sequence[str],
    unread: Sequence[str],
    folder: Folder,
    faults: list[str],
) -> Row | None:
    """Return one row, or None if it is invalid; its faults are then appended to ``faults``."""
    before = len(faults)
    where = f"line {line}: "
    if any(len(cell) > _LONGEST_CELL or "\0" in cell for cell in record.values()):
        faults.append(f"{where}a cell of more than {_LONGEST_CELL} characters, or with a NUL")
        return None
    files: dict[str, PurePosixPath] = {}
    for name in modalities:
        if cell := record.get(name):
            path = PurePosixPath(os.path.normpath(cell))
            if reason_template := folder.refuses(path):
                faults.append(f"{where}{reason_template.format(name=name, file=printable(cell))}{_not_utf8(cell)}")
            files[name] = path
    if not files:
        faults.append(f"{where}no file of any modality")
    faults_so_far = len(faults)
    start, end = (_seconds(record.get(key, ""), where + key, faults) for key in ("start_s", "end_s"))
    if end is not None and end <= (start or 0.0) and len(faults) == faults_so_far:
        when = f"begins and ends at {end:g} s"
        if end < (start or 0.0):
            when = f"ends at {end:g} s, before it begins at {start:g} s"
        faults.append(f"{where}the piece {when}")
    if not is_label(label := record.get("label", "")):
        faults.append(f"{where}label '{printable(label[:40])}' is not a valid class name{_not_utf8(label)}")
    side = record.get("split", "").lower()
    side = {"validation": "val", "valid": "val", "training": "train", "testing": "test"}.get(side, side)
    if side not in SIDES:
        faults.append(f"{where}split '{printable(side)}' is not train, val or test")
    offsets = {n: _offset(record[n + OFFSET], where + n + OFFSET, faults) for n in files if record.get(n + OFFSET)}
    if len(faults) > before:
        return None
    texts = {key: printable(record.get(key, "")) for key in ("label", "subject", "view", "trial")}
    first = next(iter(files.values()))
    piece = "" if start is None and end is None else f"@{_number(start or 0.0)}"
    return Row(
        id=printable(record.get("id") or f"{first.with_suffix('')}{piece}"),
        files=files, split=side, start_s=start or 0.0, end_s=end, offsets_s=offsets,
        notes={name: record[name] for name in unread if record.get(name)}, line=line, **texts,
    )  # fmt: skip


def is_label(text: str) -> bool:
    """Whether a text may be a class name: short and without control characters."""
    return text.isprintable() and len(text) <= _LONGEST_LABEL


def _not_utf8(cell: str) -> str:
    """Note appended to a fault if the cell is not valid UTF-8."""
    return ", with bytes that are not UTF-8 (save the table as UTF-8)" if re.search("[\udc80-\udcff]", cell) else ""


def plain(label: str) -> str:
    """Normalise a class name: case-folded, with runs of blanks, ``_`` and ``-`` as one blank."""
    return " ".join(re.split(r"[\s_-]+", label.casefold())).strip()


def _seconds(cell: str, what: str, faults: list[str]) -> float | None:
    if not cell:
        return None
    value = _offset(cell, what, faults)
    if value < 0:
        faults.append(f"{what} {value:g} is before the recording begins")
    return value


def _offset(cell: str, what: str, faults: list[str]) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not abs(value) <= 1e7:
        faults.append(f"{what} '{printable(cell)}' is not a number of seconds")
        return 0.0
    return value


def _lines(first: Row, second: Row) -> str:
    return f"lines {first.line} and {second.line}"


def _clashes(rows: Sequence[Row], where: Callable[[Row, Row], str]) -> Iterator[str]:
    """Describe conflicts: duplicate ids, labels differing only by capitals or blanks, overlapping or equal pieces.

    Args:
        rows: All rows to compare.
        where: Formats the location of two rows.
    """
    ids: dict[str, Row] = {}
    for row in rows:
        if (first := ids.setdefault(row.id, row)) is not row:
            yield f"{where(first, row)}: two rows with id '{printable(row.id)}'"
    spelled = defaultdict[str, dict[str, Row]](dict)
    for row in filter(lambda row: row.label, rows):
        spelled[plain(row.label)].setdefault(row.label, row)
    for found in spelled.values():
        if len(found) > 1:
            first, second = list(found.values())[:2]
            labels = f"'{printable(first.label)}' and '{printable(second.label)}'"
            yield f"{where(first, second)}: labels {labels} differ by capitals or blanks only"
    yield from _overlaps(rows, where)
    yield from _duplicates(rows, where)


def _overlaps(rows: Sequence[Row], where: Callable[[Row, Row], str]) -> Iterator[str]:
    pieces = defaultdict[PurePosixPath, list[Row]](list)
    for row in rows:
        for path in row.files.values():
            pieces[path].append(row)
    reported = set()
    for path, rows_of_file in pieces.items():
        rows_of_file.sort(key=lambda row: row.start_s)
        for first, second in pairwise(rows_of_file):
            overlap = first.end_s is None or second.start_s < first.end_s
            clash = overlap and "" not in (first.label, second.label) and first.label != second.label
            if clash and (id(first), id(second)) not in reported:
                reported.add((id(first), id(second)))
                yield (
                    f"{where(first, second)}: '{printable(first.label)}' and '{printable(second.label)}' "
                    f"overlap in {printable(str(path))}"
                )


def _duplicates(rows: Sequence[Row], where: Callable[[Row, Row], str]) -> Iterator[str]:
    """Rows of the same piece of the same file, which could end up on both the training and the test side.

    Two views may share a sensor's file if each also has a file of its own.
    """
    firsts: dict[tuple[PurePosixPath, float, float | None], Row] = {}
    reported = set()
    for row in filter(lambda row: row.label, rows):
        for name, path in row.files.items():
            offset = row.offsets_s.get(name, 0.0)
            end = None if row.end_s is None else round(row.end_s - offset, 6)
            first = firsts.setdefault((path, round(row.start_s - offset, 6), end), row)
            if first.id == row.id or first.label != row.label or (id(first), id(row)) in reported:
                continue  # the row itself, or already reported, here or as another fault
            first_files, files = set(first.files.values()), set(row.files.values())
            if first.view != row.view and first_files - files and files - first_files:
                continue
            reported.add((id(first), id(row)))
            yield f"{where(first, row)}: the same piece of {printable(str(path))} twice"


def _unread(columns: Sequence[str], modalities: Sequence[str]) -> list[str]:
    offsets = {name + OFFSET for name in modalities}
    return [c for c in columns if c not in COLUMNS and c not in modalities and c not in offsets]


def _time_like(unread: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield unread columns that look like start or end times: (quoted name, suggestion)."""
    for column in unread:
        word = re.sub(r"[^a-z]+", "_", column.lower()).strip("_").removesuffix("_sec").removesuffix("_seconds")
        word = word.removesuffix("_time").removesuffix("_s").removesuffix("time")
        if word in (*_STARTS, *_ENDS):
            yield f"'{printable(column)}'", f" (did you mean '{'start_s' if word in _STARTS else 'end_s'}'?)"


def _remarks(unread: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    if unknown := [column for column in unread if column != SESSION]:
        yield f"columns that are not read: {_listed(unknown)}"
    for column, suggestion in _time_like(unread):
        yield f"column {column} does not cut recordings{suggestion}"
    unlabelled = sum(not row.label for row in rows)
    if unlabelled:
        yield f"{unlabelled} of {len(rows)} rows have no label yet and are used only by dense stages"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:12]) + (" ..." if len(names) > 12 else "")


def _faulty(path: Path, faults: Sequence[str]) -> DataError:
    more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    return DataError(
        f"{path}: {'; '.join(faults[:_FAULTS_SHOWN])}{more}", "rows without faults", "correct them, and run again"
    )


def _unreadable(path: Path, found: str) -> DataError:
    return DataError(f"{path} cannot be read: {found}", "a table of recordings", "correct or re-create it")
