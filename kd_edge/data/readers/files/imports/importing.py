"""From whatever list somebody has to rows: find out what it is, read it, and check it as a manifest is checked."""

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
"""What can be imported."""
_ANY_HEIGHT_PX = 480  # only headers are read


@dataclass(frozen=True, slots=True)
class Imported:
    """What was understood.

    Attributes:
        root: The folder that files are named from.
        kinds: What each list is, by its path.
        rows: All rows, checked as those of a manifest are.
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
    """Read lists that other tools made; see ``KINDS``.

    Args:
        sources: Lists, or folders that hold one; those called ``train``, ``val`` and ``test`` are the sides.
        root: Folder that files are named from; None: the lists' own.
        modality: What the files are, where the list does not tell.
        names: A text file with the classes' names, for lists with numbers: the first line is class 0, unless every
            line begins with its number.
        label: Column with the class, of tables.
        skip_missing: Leave out files that are not there.

    Raises:
        DataError: A list cannot be read or is of no known kind, or rows of it are faulty; nothing is written.
        ConfigError: A modality that cannot be a column's name, or a faulty ``dataset.toml``.
        MissingExtraError: Parquet without pyarrow.
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
        its, more = _checked(found, folder, settings, skip_missing)
        rows += its
        checked.append((path, its))
        remarks += [*found.remarks, *more]
    if not rows:
        raise DataError(
            f"no recording of {', '.join(map(str, lists))} is below {folder}", "at least one", "name it with --root"
        )
    check_together(checked)
    return Imported(folder, kinds, tuple(rows), tuple(remarks))


def foreign(root: Path) -> str:
    """The list of another tool that a folder without a manifest has; empty where it has none that names classes."""
    if is_file(root / INFO):
        return INFO
    places = ("", *SIDES)  # where VideoFolder looks; a glob would look into every folder of images
    for path in (root / inner / side / name for inner in ("", "data") for side in places for name in METADATA):
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
        raise DataError(f"{source} holds no list of a known kind", KINDS, "name the list itself")
    return found


def _metadata(folder: Path) -> Iterator[Path]:
    """Metadata of VideoFolder, in a folder and two levels below it."""
    for pattern in ("", "*/", "*/*/"):
        yield from sorted(path for name in METADATA for path in folder.glob(pattern + name) if is_file(path))


def _root(sources: Sequence[Path], lists: Sequence[Path]) -> Path:
    if len(sources) == 1 and sources[0].is_dir():
        return sources[0]
    parents = {path.parent.parent if _is_info(path) else path.parent for path in lists}
    if len(parents) > 1:
        raise ConfigError("lists in several folders", "one folder that files are named from", "name it with --root")
    return parents.pop()


def _is_info(path: Path) -> bool:
    return path.parts[-2:] == tuple(INFO.split("/"))


def _reader(path: Path) -> Callable[[Path, Wanted], Found]:
    if path.name in NAMES:
        raise DataError(f"{path} is a manifest already", KINDS, "kd-edge data check files --data its folder")
    if _is_info(path):
        return read_lerobot
    if path.suffix == ".json":
        return read_activitynet
    if path.suffix in (".jsonl", ".parquet"):
        return read_table
    if path.suffix in (".txt", ".csv", ".tsv", ".list", ".lst", ""):
        return read_table if header_of(path) else read_list
    raise DataError(f"{path} is no list of a known kind", KINDS, "name the list itself")


def _names(path: Path) -> dict[int, str]:
    """Class names by their numbers; see ``import_rows``."""
    lines = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    numbered = [re.fullmatch(r"(\d{1,9})[\s,:;]+(.+)", line) for line in lines]
    if all(numbered):
        found = {int(match[1]): match[2].strip().strip("\"'") for match in numbered if match}
    else:
        found = dict(enumerate(lines))
    if not lines or len(set(found.values())) < len(lines):
        raise unreadable(path, "it is empty" if not lines else "a name or number is there twice")
    return found


def _checked(found: Found, root: Path, settings: Settings, skip_missing: bool) -> tuple[tuple[Row, ...], list[str]]:
    """Rows of a list without what is there twice, and what is to be said of it."""
    stripped = [(line, _stripped(record, found.modalities)) for line, record in reversed(found.cells)]
    once = {tuple(sorted(record.items())): (line, record) for line, record in stripped}
    cells = sorted(once.values(), key=lambda cell: cell[0])
    remarks = [f"rows that are there twice: {len(found.cells) - len(cells)}"] if len(cells) < len(found.cells) else []
    if skip_missing:
        there = [cell for line, record in cells if (cell := _there(line, record, found.modalities, root)) is not None]
        if len(there) < len(cells):
            remarks.append(f"recordings that are not there, left out: {len(cells) - len(there)} of {len(cells)}")
        cells = there
        if not cells:
            return (), remarks
    try:
        table = table_of(found.path, cells, root, found.modalities, links=settings.links)
    except DataError as error:
        fix = "correct them; --root names the folder of the files, --skip-missing leaves out those that are not there"
        raise DataError(error.found, error.expected, fix) from error
    if beyond := _beyond(table, root, settings):
        raise DataError(f"{found.path}: {beyond}", "pieces inside their recordings", "correct them, or the recording")
    return table.rows, [
        *remarks,
        *(remark.replace("are not read", "are kept and not read") for remark in table.remarks),
    ]


def _beyond(table: Table, root: Path, settings: Settings) -> str:
    """The first piece that goes on after a file of it has ended, by the file's header; empty where none does.

    Of a header that cannot be read nobody knows; whoever opens the file is told.
    """
    lengths: dict[tuple[str, PurePosixPath], float] = {}
    for row in table.rows:
        if not row.start_s and row.end_s is None:
            continue
        for name, file in row.files.items():
            its = settings.of(name)
            if (name, file) not in lengths:
                lengths[name, file] = math.inf
                with suppress(DataError):
                    lengths[name, file] = Media(its, its.channels(name), _ANY_HEIGHT_PX).probe(root / file).seconds
            length, late = lengths[name, file], its.offset_s + row.offsets_s.get(name, 0.0)
            last = (row.start_s if row.end_s is None else row.end_s) - late
            if row.start_s - late > length or last > length + LATE_SECONDS:
                piece = f"from {row.start_s:g} s to {'its end' if row.end_s is None else f'{row.end_s:g} s'}"
                return f"line {row.line}: a piece {piece} of {printable(str(file))}, which ends at {length:.4g} s"
    return ""


def _stripped(record: dict[str, str], modalities: Sequence[str]) -> dict[str, str]:
    """Without blanks around texts, as a manifest is read; a file's name may begin with one."""
    return {name: cell if name in modalities else cell.strip() for name, cell in record.items()}


def _there(line: int, record: dict[str, str], modalities: Sequence[str], root: Path) -> Cells | None:
    """A row without the files that are not there; None where none is."""
    absent = [m for m in modalities if record.get(m) and not os.path.exists(root / record[m])]  # noqa: PTH110
    kept = {name: cell for name, cell in record.items() if name not in absent}
    return (line, kept) if any(kept.get(m) for m in modalities) else None
