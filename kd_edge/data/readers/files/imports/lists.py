"""Text lists without a header: ``path label`` as used by mmaction2, PyTorchVideo and others, also for image folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from kd_edge.data.readers.files.imports.found import SIDES, Found, Wanted, class_name, read_text, relative, unreadable
from kd_edge.data.readers.files.media import ENDINGS
from kd_edge.data.readers.files.rows import MOST_ROWS, Cells
from kd_edge.data.readers.images import IMAGES
from kd_edge.errors import printable

_SEPARATORS = ("\t", ";", ",")
_NUMBER = re.compile(r"-?\d{1,9}")


class _Line(NamedTuple):
    """One recording of a list: its path and the fields after it."""

    number: int
    path: str
    rest: tuple[str, ...]


def read_list(path: Path, wanted: Wanted) -> Found:
    """Read a list with one recording per line.

    Lines are ``video label`` or, for folders of images, ``folder frames label`` or ``folder first-frame frames label``.
    A label is a number or a name; without one, or with -1, the recording is unlabelled. Fields are separated by blanks
    or, if every line has them, by tabs, semicolons or commas. A list named ``train``, ``val`` or ``test`` gives the
    side. Lines that begin with ``#`` and name no file are left out.

    Raises:
        DataError: The list has another format, or a number has no name.
    """
    lines, remarks = _lines(path, wanted.root)
    if not lines:
        raise unreadable(path, "it is empty")
    shape = _shape(path, lines)
    side = side_of(path.stem)
    cells: list[Cells] = []
    for line in lines:
        try:
            label = class_name(line.rest[-1] if line.rest else "", wanted.names)
        except KeyError as error:
            raise unreadable(path, f"line {line.number}: no name for label {error}") from error
        record = {wanted.modality: relative(line.path, wanted.root, wanted.root), "label": label, "split": side}
        record |= _piece(path, line, shape, wanted)
        cells.append((line.number, record))
    kind = "a list of videos" if shape == 1 else "a list of folders of images"
    return Found(kind, path, cells, (wanted.modality,), remarks)


def side_of(name: str) -> str:
    """Return the side in the name of a list or folder; empty if there is none or more than one."""
    sides = {SIDES[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SIDES}
    return sides.pop() if len(sides) == 1 else ""


def _lines(path: Path, root: Path) -> tuple[list[_Line], list[str]]:
    """Lines with a recording, and remarks on the others."""
    written = [(k, text.strip()) for k, text in enumerate(read_text(path).split("\n"), 1) if text.strip()]
    if len(written) > MOST_ROWS:
        raise unreadable(path, f"more than {MOST_ROWS:,} rows")
    numbered = [(k, text) for k, text in written if not _is_comment(text, root)]
    comments = len(written) - len(numbered)
    separator = next((s for s in _SEPARATORS if all(s in text for _, text in numbered)), None)
    remarks = [f"lines that begin with # and name no file, left out: {comments}"] if comments else []
    return [_line(number, text, separator, root) for number, text in numbered], remarks


def _is_comment(text: str, root: Path) -> bool:
    """Whether a line begins with ``#`` but not with the path of an existing file."""
    ends = [match.start() for match in re.finditer(r"[\s,;]|$", text)] if text.startswith("#") else []
    return bool(ends) and not any(os.path.exists(root / text[:end]) for end in ends)  # noqa: PTH110 - too long


def _line(number: int, text: str, separator: str | None, root: Path) -> _Line:
    if separator is None:
        return _split(number, re.split(r"(\s+)", text), root)
    first, *others = (word.strip() for word in text.split(separator))
    return _Line(number, first, tuple(filter(None, others)))


def _split(number: int, words: Sequence[str], root: Path) -> _Line:
    """Split a line after its path, which may contain blanks.

    The path is the longest beginning that exists, otherwise the longest with a recording's suffix, otherwise the first
    word.
    """
    heads = [("".join(words[: k + 1]), words[k + 2 :: 2]) for k in range(0, len(words), 2)]
    existing = [at for at, (head, _) in enumerate(heads) if os.path.exists(root / head)]  # noqa: PTH110 - too long
    with_suffix = [at for at, (head, _) in enumerate(heads) if PurePosixPath(head).suffix.lower() in ENDINGS]
    path, rest = heads[existing[-1] if existing else with_suffix[-1] if with_suffix else 0]
    numbers = 0
    while numbers < len(rest) and _NUMBER.fullmatch(rest[numbers]):
        numbers += 1
    if numbers < len(rest):  # the name of a class, after the frame numbers of a folder
        numbers *= PurePosixPath(path).suffix.lower() not in ENDINGS
        rest = [*rest[:numbers], " ".join(rest[numbers:])]
    return _Line(number, path, tuple(rest))


def _shape(path: Path, lines: Sequence[_Line]) -> int:
    """Number of fields after a path: 1 (label), 2 (frames, label) or 3 (first frame, frames, label).

    Raises:
        DataError: Lines differ in the number, for example because some have several labels.
    """
    is_video = any(PurePosixPath(line.path).suffix.lower() in ENDINGS for line in lines)
    counts = Counter(len(line.rest) for line in lines if line.rest)
    usual = min(counts.most_common()[0][0], 1 if is_video else 3) if counts else 1
    if odd := next((line for line in lines if line.rest and len(line.rest) != usual), None):
        text = printable(" ".join(odd.rest)[:60])
        raise unreadable(path, f"line {odd.number}: '{text}' after the path, where one label is expected")
    return usual


def _piece(path: Path, line: _Line, shape: int, wanted: Wanted) -> dict[str, str]:
    """Start and end in seconds of the frames that a line names, halfway to the neighbouring frames."""
    if shape == 1 or not line.rest:
        return {}
    if not all(_NUMBER.fullmatch(field) for field in line.rest[:-1]):
        raise unreadable(path, f"line {line.number}: '{printable(line.rest[0][:40])}' is not a number of frames")
    first, count = (0, *map(int, line.rest[:-1]))[-2:]
    images = _images(wanted.root / line.path)
    if images is not None and (first < 0 or count < 1 or first + count > images):
        frames = f"frames {first} to {first + count - 1}"
        raise unreadable(path, f"line {line.number}: {frames} of {printable(line.path)}, which has {images} images")
    end = {} if images == first + count else {"end_s": repr((first + count - 0.5) / wanted.fps)}
    return {"start_s": repr(max(0.0, first - 0.5) / wanted.fps)} | end if first or end else {}


def _images(folder: Path) -> int | None:
    """Number of images; None if the folder is missing, which is reported together with other missing files."""
    try:
        names = [file.name.lower() for file in folder.iterdir()]
    except (OSError, ValueError):
        return None
    return sum(name.endswith(IMAGES) and not name.startswith(".") for name in names)
