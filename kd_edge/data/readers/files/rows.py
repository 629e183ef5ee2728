"""The table of one's own recordings: a row for each labelled piece, from ``manifest.csv`` or ``manifest.jsonl``."""

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
"""A column that is kept and not read: when it was recorded."""
OFFSET = "_offset_s"
"""What follows a modality's name in the column that says how much later its file begins."""
SIDES = ("", "train", "val", "test")
MOST_BYTES = 256_000_000
MOST_ROWS = 2_000_000
Cells = tuple[int, dict[str, str]]
"""A row as it was read: its line, and its cells by the names of their columns."""
_FAULTS_SHOWN = 3
_BEGINNINGS, _ENDS = ("start", "begin", "from", "onset"), ("end", "stop", "to", "until", "offset")
_LONGEST_CELL, _LONGEST_LABEL = 4096, 200


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled piece of recordings that belong together.

    Attributes:
        id: Unique in the table.
        label: Class name; empty where nobody has labelled it yet.
        subject: Who performs; empty where not known.
        view: Where the camera stands.
        trial: Which repetition.
        split: ``train``, ``val`` or ``test``; empty where the data set's rule decides.
        files: Path of each modality it has, relative to the data set's folder.
        start_s: Where the piece begins, in seconds of the recording.
        end_s: Where it ends; None: with the recording.
        offsets_s: How much later than the piece's clock a modality's file begins, where that is not 0.
        notes: What stands in columns that are not read; kept for whoever writes the table again.
        line: Where it stands, for messages; 0 where it comes of folders.
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
    """All rows, and what was noticed on the way.

    Attributes:
        rows: In the order of the file.
        modalities: Names of the columns with files, in their order.
        remarks: What a user should know: columns that are not read, rows without a label.
    """

    rows: tuple[Row, ...]
    modalities: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def manifest_of(root: Path) -> Path | None:
    """The folder's manifest; None where there is none.

    Raises:
        DataError: There are two.
    """
    found = [root / name for name in NAMES if is_file(root / name)]
    if len(found) > 1:
        raise DataError(f"{root} has {' and '.join(NAMES)}", "one manifest", "remove one of them")
    return found[0] if found else None


def read_manifest(path: Path, known: Iterable[str] = (), *, links: bool = False) -> Table:
    """Read a manifest; every fault in it is found, the first three are told.

    Args:
        path: ``manifest.csv`` or ``manifest.jsonl``; files are looked for beside it.
        known: Modalities that ``dataset.toml`` names, so that their columns are taken for files.
        links: Whether symbolic links may lead out of the folder.

    Raises:
        DataError: It cannot be read, or a row is faulty.
    """
    return table_of(path, list(_records(path)), path.parent, known, links=links)


def table_of(
    path: Path, cells: Sequence[Cells], root: Path, known: Iterable[str] = (), *, links: bool = False
) -> Table:
    """The table that records make, whatever list they were read from; every fault in it is found.

    Args:
        path: Where they stand, for messages.
        cells: (line, cells by column) of each row, columns named as in a manifest.
        root: Their files are looked for in this folder.
        known: Columns that hold files whatever their name.
        links: Whether symbolic links may lead out of the folder.

    Raises:
        DataError: A column is missing, or a row is faulty.
    """
    if not cells:
        raise DataError(f"{path} has no rows", "a row for each recording", "add them below the names of the columns")
    columns = list(dict.fromkeys(name for _, record in cells for name in record))
    if "label" not in columns:
        raise DataError(
            f"{path} has the columns {_listed(columns)}",
            "a column 'label' and one of files for each modality (rgb, ir, ...)",
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
        faults += [f"column {column} is not read{meant}" for column, meant in _times(unread)] + clashes
    if faults:
        raise _faulty(path, faults)
    return Table(rows, modalities, tuple(_remarks(unread, rows)))


def check_together(lists: Sequence[tuple[Path, Sequence[Row]]]) -> None:
    """Make sure that rows of several lists go together; each list was checked by itself.

    Raises:
        DataError: Two of them clash.
    """
    common = os.path.commonpath([path.parent for path, _ in lists])
    names = {id(row): printable(os.path.relpath(path, common)) for path, rows in lists for row in rows}

    def where(one: Row, other: Row) -> str:
        first, second = names[id(one)], names[id(other)]
        if first == second:
            return f"{first}, {_lines(one, other)}"
        return f"{first} line {one.line} and {second} line {other.line}"

    if faults := list(_clashes([row for _, rows in lists for row in rows], where)):
        raise _faulty(Path(common), faults)


class Folder:
    """Tells what of a folder may be read.

    Args:
        root: The folder.
        links: Whether symbolic links may lead out of it.
    """

    def __init__(self, root: Path, *, links: bool) -> None:
        self._root, self._links = root, links
        self._real = os.path.realpath(root)
        self._parents: dict[PurePosixPath, bool] = {}

    def refuses(self, path: PurePosixPath) -> str:
        """Why a file is not read, with the places ``{name}`` and ``{file}``; empty where it is."""
        if path.is_absolute() or ".." in path.parts:
            inside = path.is_absolute() and os.path.commonpath((self._root.absolute(), path)) == str(
                self._root.absolute()
            )
            return (
                "{name} '{file}' is absolute, not named from the folder"
                if inside
                else "{name} '{file}' lies outside the folder"
            )
        if not path.name:
            return "{name} '{file}' is the folder itself"
        if not os.path.exists(self._root / path):  # noqa: PTH110 - a name too long is none that exists
            slashes = "\\" in path.name and os.path.exists(self._root / str(path).replace("\\", "/"))  # noqa: PTH110
            return "no {name} file {file}" + (", but one with / in the place of \\" if slashes else "")
        if self.leads_out(path):
            return "{name} '{file}' lies outside the folder, behind a link (links = true in dataset.toml allows it)"
        return ""

    def leads_out(self, path: PurePosixPath) -> bool:
        """Whether links lead out of the folder, and must not; every parent is looked at once."""
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
    """(line, cells by column) of each row that is not empty."""
    try:
        content = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise _unreadable(path, error.strerror or reason(error)) from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16", "UTF-8", "save it as such, in a spreadsheet as 'CSV UTF-8'")
    text = content.decode("utf-8-sig", "surrogateescape")
    reader = csv_records if path.suffix == ".csv" else _json_records
    for count, (line, record) in enumerate(reader(path, text)):
        if count >= MOST_ROWS:
            raise _unreadable(path, f"more than {MOST_ROWS:,} rows")
        if any(record.values()):
            yield line, record


def delimiter_of(text: str) -> str:
    """What parts the columns of a table: what its first line has most of."""
    return max(",;\t", key=text.partition("\n")[0].count)


def csv_records(path: Path, text: str, *, strict: bool = False) -> Iterator[Cells]:
    """(line, cells by column) of each row of a table.

    Args:
        path: Where it was read, for messages.
        text: All of it.
        strict: Whether quotes that are never closed, or closed inside a cell, are faults.

    Raises:
        DataError: It is no table, or a row has more cells than there are columns.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=strict)
    try:
        names = [name.strip() for name in next(reader, [])]
        if twice := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
            raise _unreadable(path, f"two columns called '{printable(twice[0])}'")
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
            raise _unreadable(path, f"line {number} is no object of plain values")
        yield number, {k.strip(): "" if v is None else str(v).strip() for k, v in record.items() if k.strip()}


def _modalities(columns: Sequence[str], cells: Sequence[Cells], root: Path, known: frozenset[str]) -> tuple[str, ...]:
    """Columns that hold files: by their name, or because every cell of theirs is the name of one."""

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
    """One row; None where it is faulty, which is added to the faults."""
    before = len(faults)
    where = f"line {line}: "
    if any(len(cell) > _LONGEST_CELL or "\0" in cell for cell in record.values()):
        faults.append(f"{where}a cell of more than {_LONGEST_CELL} characters, or with a NUL")
        return None
    files: dict[str, PurePosixPath] = {}
    for name in modalities:
        if cell := record.get(name):
            path = PurePosixPath(os.path.normpath(cell))
            if why := folder.refuses(path):
                faults.append(f"{where}{why.format(name=name, file=printable(cell))}{_not_utf8(cell)}")
            files[name] = path
    if not files:
        faults.append(f"{where}no file of any modality")
    of_files = len(faults)
    start, end = (_seconds(record.get(key, ""), where + key, faults) for key in ("start_s", "end_s"))
    if end is not None and end <= (start or 0.0) and len(faults) == of_files:
        when = f"begins and ends at {end:g} s"
        if end < (start or 0.0):
            when = f"ends at {end:g} s, before it begins at {start:g} s"
        faults.append(f"{where}the piece {when}")
    if not is_label(label := record.get("label", "")):
        faults.append(f"{where}label '{printable(label[:40])}' is no name of a class{_not_utf8(label)}")
    side = record.get("split", "").lower()
    side = {"validation": "val", "valid": "val", "training": "train", "testing": "test"}.get(side, side)
    if side not in SIDES:
        faults.append(f"{where}split '{printable(side)}' is none of train, val, test")
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
    """Whether it may be the name of a class: short, and nothing in it that steers a terminal."""
    return text.isprintable() and len(text) <= _LONGEST_LABEL


def _not_utf8(cell: str) -> str:
    """What to add where bytes of a cell are no UTF-8."""
    return ", with bytes that are not UTF-8 (save the table as UTF-8)" if re.search("[\udc80-\udcff]", cell) else ""


def plain(label: str) -> str:
    """A class name without what people write differently: capitals, blanks, and ``_`` or ``-`` in their place."""
    return " ".join(re.split(r"[\s_-]+", label.casefold())).strip()


def _seconds(cell: str, what: str, faults: list[str]) -> float | None:
    if not cell:
        return None
    value = _offset(cell, what, faults)
    if value < 0:
        faults.append(f"{what} {value:g} is before the recording")
    return value


def _offset(cell: str, what: str, faults: list[str]) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not abs(value) <= 1e7:
        faults.append(f"{what} '{printable(cell)}' is no number of seconds")
        return 0.0
    return value


def _lines(one: Row, other: Row) -> str:
    return f"lines {one.line} and {other.line}"


def _clashes(rows: Sequence[Row], where: Callable[[Row, Row], str]) -> Iterator[str]:
    """Rows of one id, labels that differ by capitals or blanks only, pieces told twice or with another label each.

    Args:
        rows: All that are to go together.
        where: How two of them are named.
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
            one, other = list(found.values())[:2]
            labels = f"'{printable(one.label)}' and '{printable(other.label)}'"
            yield f"{where(one, other)}: labels {labels} differ by capitals or blanks only"
    yield from _overlaps(rows, where)
    yield from _twice(rows, where)


def _overlaps(rows: Sequence[Row], where: Callable[[Row, Row], str]) -> Iterator[str]:
    pieces = defaultdict[PurePosixPath, list[Row]](list)
    for row in rows:
        for path in row.files.values():
            pieces[path].append(row)
    told = set()
    for path, its in pieces.items():
        its.sort(key=lambda row: row.start_s)
        for one, other in pairwise(its):
            overlap = one.end_s is None or other.start_s < one.end_s
            clash = overlap and "" not in (one.label, other.label) and one.label != other.label
            if clash and (id(one), id(other)) not in told:
                told.add((id(one), id(other)))
                yield (
                    f"{where(one, other)}: '{printable(one.label)}' and '{printable(other.label)}' "
                    f"overlap in {printable(str(path))}"
                )


def _twice(rows: Sequence[Row], where: Callable[[Row, Row], str]) -> Iterator[str]:
    """Rows of the same piece of the same file: one might be trained with and the other tested with.

    Two views may share the file of a sensor, where each has a file of its own besides.
    """
    firsts: dict[tuple[PurePosixPath, float, float | None], Row] = {}
    told = set()
    for row in filter(lambda row: row.label, rows):
        for name, path in row.files.items():
            late = row.offsets_s.get(name, 0.0)
            end = None if row.end_s is None else round(row.end_s - late, 6)
            first = firsts.setdefault((path, round(row.start_s - late, 6), end), row)
            if first.id == row.id or first.label != row.label or (id(first), id(row)) in told:
                continue  # the row itself, or told otherwise
            one, other = set(first.files.values()), set(row.files.values())
            if first.view != row.view and one - other and other - one:
                continue
            told.add((id(first), id(row)))
            yield f"{where(first, row)}: the same piece of {printable(str(path))} twice"


def _unread(columns: Sequence[str], modalities: Sequence[str]) -> list[str]:
    offsets = {name + OFFSET for name in modalities}
    return [c for c in columns if c not in COLUMNS and c not in modalities and c not in offsets]


def _times(unread: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Columns that look as if they were meant to cut recordings: (quoted name, what was meant)."""
    for column in unread:
        word = re.sub(r"[^a-z]+", "_", column.lower()).strip("_").removesuffix("_sec").removesuffix("_seconds")
        word = word.removesuffix("_time").removesuffix("_s").removesuffix("time")
        if word in (*_BEGINNINGS, *_ENDS):
            yield f"'{printable(column)}'", f" (did you mean '{'start_s' if word in _BEGINNINGS else 'end_s'}'?)"


def _remarks(unread: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    if told := [column for column in unread if column != SESSION]:
        yield f"columns that are not read: {_listed(told)}"
    for column, meant in _times(unread):
        yield f"column {column} cuts no recording{meant}"
    unlabelled = sum(not row.label for row in rows)
    if unlabelled:
        yield f"{unlabelled} of {len(rows)} rows have no label yet and are for dense stages alone"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:12]) + (" ..." if len(names) > 12 else "")


def _faulty(path: Path, faults: Sequence[str]) -> DataError:
    more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
    return DataError(
        f"{path}: {'; '.join(faults[:_FAULTS_SHOWN])}{more}", "rows without faults", "correct them, and run again"
    )


def _unreadable(path: Path, found: str) -> DataError:
    return DataError(f"{path} cannot be read: {found}", "a table of recordings", "correct or re-create it")
