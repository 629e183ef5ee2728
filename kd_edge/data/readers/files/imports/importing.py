"""Import a list of recordings: recognise its format, read it, and check it like a manifest."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kd_edge.data.readers.files.imports.activitynet import read_activitynet
from kd_edge.data.readers.files.imports.found import SIDES, Found, Wanted, json_object, read_text, unreadable
from kd_edge.data.readers.files.imports.lerobot import INFO, read_lerobot
from kd_edge.data.readers.files.imports.lists import read_list
from kd_edge.data.readers.files.imports.parquet import columns_of
from kd_edge.data.readers.files.imports.tables import LABELS, METADATA, header_of, read_table
from kd_edge.data.readers.files.media import LATE_SECONDS, Media
from kd_edge.data.readers.files.rows import COLUMNS, NAMES, OFFSET, Cells, Row, Table, check_together, table_of
from kd_edge.data.readers.files.settings import DEFAULT_FPS, MODALITY, Settings, read_settings
from kd_edge.errors import ConfigError, DataError, MissingExtraError, printable
from kd_edge.reading import is_file

KINDS = (
    "a list of 'path label' lines, ActivityNet's JSON, a table with file_name and label, or a folder with "
    f"metadata.csv or {INFO}"
)
"""Formats that can be imported."""
_ANY_HEIGHT_PX = 480  # only headers are read


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import.

    Attributes:
        root: The folder that file names are relative to.
        kinds: Description of each list's format, by path.
        rows: All rows, checked like those of a manifest.
        remarks: What was left out, and why.
    """

    root: Path
    kinds: dict[str, str]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...]


def import_rows(
    sources: Sequence[Path],
    root: Path | None = None,
    *,
    modality: str = "rgb",
    names: Path | None = None,
    label: str | None = None,
    skip_missing: bool = False,
) -> Imported:
    """Read lists written by other tools; see ``KINDS``.

    Args:
        sources: Lists, or folders that contain one; the names ``train``, ``val`` and ``test`` give the side.
        root: Folder that file names are relative to; None for the folder of the lists.
        modality: Modality of the files if the list does not contain it.
        names: A text file with class names for lists with numbers: the first line is class 0, unless every line begins
            with its number.
        label: Column of a table with the class.
        skip_missing: Leave out missing files.

    Raises:
        DataError: A list cannot be read, is of an unknown kind, or has invalid rows; nothing is written.
        ConfigError: The modality is not a valid column name, or ``dataset.toml`` is invalid.
        MissingExtraError: A Parquet file needs pyarrow, which is not installed.
    """
    if not re.fullmatch(MODALITY, modality) or modality in COLUMNS or modality.endswith(OFFSET):
        raise ConfigError(f"--modality {printable(modality)}", "a name like rgb, ir or depth", "correct it")
    lists = [found for source in sources for found in _lists(source)]
    folder = _root(sources, lists) if root is None else root
    if not folder.is_dir():
        raise DataError(f"no folder {folder}", "the folder of the recordings", "correct --root")
    settings = read_settings(folder)
    fps = settings.of(modality).fps or DEFAULT_FPS
    wanted = Wanted(folder, modality, {} if names is None else _names(names), label, fps)
    kinds: dict[str, str] = {}
    rows: list[Row] = []
    checked: list[tuple[Path, tuple[Row, ...]]] = []
    remarks: list[str] = []
    for path in lists:
        found = _reader(path)(path, wanted)
        kinds[str(path)] = found.kind
        rows_of_list, more = _checked(found, folder, settings, skip_missing)
        rows += rows_of_list
        checked.append((path, rows_of_list))
        remarks += [*found.remarks, *more]
    if not rows:
        raise DataError(
            f"no recording of {', '.join(map(str, lists))} is below {folder}",
            "at least one",
            "name the folder with --root",
        )
    check_together(checked)
    return Imported(folder, kinds, tuple(rows), tuple(remarks))


def foreign(root: Path) -> str:
    """Return the path of another tool's list in a folder, relative to it; empty if there is none that names classes."""
    if is_file(root / INFO):
        return INFO
    sides = ("", *SIDES)  # where VideoFolder looks; a glob would search every folder of images
    for path in (root / inner / side / name for inner in ("", "data") for side in sides for name in METADATA):
        if not is_file(path):
            continue
        with suppress(DataError, MissingExtraError):
            if any(name.lower() in LABELS for name in _columns(path)):
                return path.relative_to(root).as_posix()
    return ""


def _columns(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return columns_of(path)
    return header_of(path) if path.suffix == ".csv" else list(json_object(path, read_text(path).partition("\n")[0]))


def _lists(source: Path) -> list[Path]:
    if is_file(source):
        return [source]
    if not source.is_dir():
        raise DataError(f"no file or folder {source}", KINDS, "correct the path")
    if is_file(source / INFO):
        return [source / INFO]
    found = list(_metadata(source))
    if not found:
        raise DataError(f"{source} contains no list of a known kind", KINDS, "name the list itself")
    return found


def _metadata(folder: Path) -> Iterator[Path]:
    """Yield VideoFolder metadata files in a folder and up to two levels below it."""
    for pattern in ("", "*/", "*/*/"):
        yield from sorted(path for name in METADATA for path in folder.glob(pattern + name) if is_file(path))


def _root(sources: Sequence[Path], lists: Sequence[Path]) -> Path:
    if len(sources) == 1 and sources[0].is_dir():
        return sources[0]
    parents = {path.parent.parent if _is_info(path) else path.parent for path in lists}
    if len(parents) > 1:
        raise ConfigError("lists in several folders", "one folder of recordings", "name it with --root")
    return parents.pop()


def _is_info(path: Path) -> bool:
    return path.parts[-2:] == tuple(INFO.split("/"))


def _reader(path: Path) -> Callable[[Path, Wanted], Found]:
    if path.name in NAMES:
        raise DataError(f"{path} is already a manifest", KINDS, "run kd-edge data check files --data on its folder")
    if _is_info(path):
        return read_lerobot
    if path.suffix == ".json":
        return read_activitynet
    if path.suffix in (".jsonl", ".parquet"):
        return read_table
    if path.suffix in (".txt", ".csv", ".tsv", ".list", ".lst", ""):
        return read_table if header_of(path) else read_list
    raise DataError(f"{path} is not a list of a known kind", KINDS, "name the list itself")


def _names(path: Path) -> dict[int, str]:
    """Read class names by number; see ``import_rows``."""
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    numbered = [re.fullmatch(r"(\d{1,9})[\s,:;]+(.+)", line) for line in lines]
    if all(numbered):
        found = {int(match[1]): match[2].strip().strip("\"'") for match in numbered if match}
    else:
        found = dict(enumerate(lines))
    if not lines or len(set(found.values())) < len(lines):
        raise unreadable(path, "it is empty" if not lines else "it contains a name or number twice")
    return found


def _checked(found: Found, root: Path, settings: Settings, skip_missing: bool) -> tuple[tuple[Row, ...], list[str]]:
    """Check the rows of a list, dropping duplicates, and return them with remarks."""
    stripped = [(line, _stripped(record, found.modalities)) for line, record in reversed(found.cells)]
    unique = {tuple(sorted(record.items())): (line, record) for line, record in stripped}
    cells = sorted(unique.values(), key=lambda cell: cell[0])
    remarks = [f"duplicate rows: {len(found.cells) - len(cells)}"] if len(cells) < len(found.cells) else []
    if skip_missing:
        present = [c for line, record in cells if (c := _present(line, record, found.modalities, root)) is not None]
        if len(present) < len(cells):
            remarks.append(f"missing recordings, left out: {len(cells) - len(present)} of {len(cells)}")
        cells = present
        if not cells:
            return (), remarks
    try:
        table = table_of(found.path, cells, root, found.modalities, links=settings.links)
    except DataError as error:
        fix = "correct them; --root names the folder of the files, --skip-missing leaves out missing ones"
        raise DataError(error.found, error.expected, fix) from error
    if beyond := _beyond(table, root, settings):
        raise DataError(f"{found.path}: {beyond}", "pieces inside their recordings", "correct them, or the recording")
    return table.rows, [
        *remarks,
        *(remark.replace("are not read", "are kept and not read") for remark in table.remarks),
    ]


def _beyond(table: Table, root: Path, settings: Settings) -> str:
    """Describe the first piece that extends past the end of one of its files, by the file's header; empty if none does.

    Unreadable headers are ignored; the file is reported when it is opened.
    """
    lengths: dict[tuple[str, PurePosixPath], float] = {}
    for row in table.rows:
        if not row.start_s and row.end_s is None:
            continue
        for name, file in row.files.items():
            modality = settings.of(name)
            if (name, file) not in lengths:
                lengths[name, file] = math.inf
                with suppress(DataError):
                    media = Media(modality, modality.channels(name), _ANY_HEIGHT_PX)
                    lengths[name, file] = media.probe(root / file).seconds
            length, offset = lengths[name, file], modality.offset_s + row.offsets_s.get(name, 0.0)
            last = (row.start_s if row.end_s is None else row.end_s) - offset
            if row.start_s - offset > length or last > length + LATE_SECONDS:
                piece = f"from {row.start_s:g} s to {'its end' if row.end_s is None else f'{row.end_s:g} s'}"
                return f"line {row.line}: a piece {piece} of {printable(str(file))}, which ends at {length:.4g} s"
    return ""


def _stripped(record: dict[str, str], modalities: Sequence[str]) -> dict[str, str]:
    """Strip all cells except file names, which may begin with a blank, as for a manifest."""
    return {name: cell if name in modalities else cell.strip() for name, cell in record.items()}


def _present(line: int, record: dict[str, str], modalities: Sequence[str], root: Path) -> Cells | None:
    """A row without its missing files; None if all are missing."""
    missing = [m for m in modalities if record.get(m) and not os.path.exists(root / record[m])]  # noqa: PTH110
    kept = {name: cell for name, cell in record.items() if name not in missing}
    return (line, kept) if any(kept.get(m) for m in modalities) else None
