"""Look at a folder of one's own recordings before anything is trained: what is in it, and what is wrong with it.

Only headers are read, several files at a time, and a handful of pictures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.balance import FEW_SUBJECTS
from kd_edge.data.dataset import listed
from kd_edge.data.readers.files import Files
from kd_edge.data.readers.files.folders import recordings
from kd_edge.data.readers.files.media import LATE_SECONDS, Header
from kd_edge.data.readers.files.rows import Row, Table, manifest_of
from kd_edge.data.readers.files.settings import Band, band_of
from kd_edge.data.splits import training_sides
from kd_edge.errors import DataError, printable
from kd_edge.machine import usable_cores

MOST_HEADERS = 6_000
"""Of more files at most so many, evenly spread, are opened: half a minute is too long for a first look."""
THREADS = 4
_FAULTS_SHOWN = 3
_INSTEAD = (
    "split 'clips' is taken instead, the last quarter of each class's clips is tested: one person's clips may lie on "
    "both sides, so the figures do not say how well it knows strangers"
)


class Size(NamedTuple):
    """A size of pictures, and how many files have it."""

    height_px: int
    width_px: int
    files: int


class Spread(NamedTuple):
    """A figure of many recordings: 5th percentile, median, 95th percentile."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassSurvey:
    """One class.

    Attributes:
        label: Its name.
        clips: How many recordings show it.
        subjects: Who performs it; without those who are not known.
        seconds: How long they take.
    """

    label: str
    clips: int
    subjects: tuple[str, ...]
    seconds: Spread


@dataclass(frozen=True, slots=True)
class ModalitySurvey:
    """One modality.

    Attributes:
        name: Of the modality.
        band: What the camera sees; None of signals.
        dtype: Type of a value.
        sizes: Of the pictures, the most frequent first; empty of signals.
        fps: Frames a second.
        clips: How many recordings have it.
        files: How many files they are in.
        opened: Of how many files the header was read.
        damaged: File -> why it cannot be read.
        seconds: How long an action takes; the background's pieces are none, unless there are no others.
        frames: Median number of frames of an action.
    """

    name: str
    band: Band | None
    dtype: str
    sizes: tuple[Size, ...]
    fps: Spread
    clips: int
    files: int
    opened: int
    damaged: dict[str, str]
    seconds: Spread
    frames: int


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the split that a training would take.

    Attributes:
        clips: How many recordings.
        subjects: Whose they are; without those who are not known.
    """

    clips: int
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """What ``survey`` found.

    Attributes:
        name: Of the data set.
        source: What it was read from: a manifest, a list of another tool, or folders and names.
        clips: How many labelled recordings.
        complete: How many of them have every modality.
        classes: In the order of the data set's labels.
        subjects: Who performs -> how many recordings; empty where nobody knows.
        modalities: Those of pictures first.
        paired: Modality -> another one -> how many recordings have both.
        gaps: How many pieces of recordings lie between the labelled ones, in all.
        gap_seconds: How long they take together.
        background: Class of the gaps as ``dataset.toml`` says; None where it says none.
        split: Name of the split that a training can take.
        sides: Its ``train``, ``validation`` and ``test``.
        unlisted: Recordings in the folder that the manifest does not name.
        remarks: What else to know before training.
    """

    name: str
    source: str
    clips: int
    complete: int
    classes: tuple[ClassSurvey, ...]
    subjects: dict[str, int]
    modalities: tuple[ModalitySurvey, ...]
    paired: dict[str, dict[str, int]]
    gaps: int
    gap_seconds: float
    background: str | None
    split: str
    sides: dict[str, Side]
    unlisted: tuple[str, ...]
    remarks: tuple[str, ...]

    def modality(self, name: str) -> ModalitySurvey:
        """The one of that name."""
        return next(m for m in self.modalities if m.name == name)

    @property
    def pictures(self) -> tuple[ModalitySurvey, ...]:
        """Those that are made of pictures."""
        return tuple(m for m in self.modalities if m.band is not None)

    @property
    def damaged(self) -> dict[str, str]:
        """File -> why it cannot be read, over all modalities."""
        return {file: why for m in self.modalities for file, why in m.damaged.items()}


_Headers = Mapping[str, Mapping[PurePosixPath, Header | DataError]]
"""By modality and file."""


def survey(dataset: Files, source: str, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Look at a folder's recordings.

    Args:
        dataset: The folder, opened.
        source: What it was read from, for the report.
        progress: Called with (files looked at, files in all).

    Raises:
        DataError: A piece goes on after its recording's end, types or kinds are mixed in a modality, no file of any
            modality can be read, no split could be trained.
    """
    headers = _headers(dataset, progress)
    _require_inside(dataset, headers)
    modalities = tuple(sorted((_modality(dataset, m, headers[m]) for m in headers), key=lambda m: m.band is None))
    if not any(m.band and len(m.damaged) < m.opened for m in modalities):
        raise _no_pictures(dataset, modalities)
    lengths = _lengths(dataset, headers)
    split, sides, notes = _sides(dataset)
    gaps = dataset.between()
    names = dataset.modalities
    return Survey(
        name=dataset.name,
        source=source,
        clips=len(dataset.rows),
        complete=sum(all(m in row.files for m in dataset.modalities) for row in dataset.rows),
        classes=tuple(_classes(dataset, lengths)),
        subjects=_counted(row.subject for row in dataset.rows if row.subject),
        modalities=modalities,
        paired={
            a: {b: sum({a, b} <= row.files.keys() for row in dataset.rows) for b in names if b != a} for a in names
        },
        gaps=len(gaps),
        gap_seconds=round(sum((row.end_s or 0.0) - row.start_s for row in gaps), 3),
        background=dataset.settings.background,
        split=split,
        sides=sides,
        unlisted=unlisted(dataset.root, dataset.table, links=dataset.settings.links),
        remarks=(*dataset.remarks(), *_few_subjects(dataset), *notes),
    )


def unlisted(root: Path, table: Table, *, links: bool) -> tuple[str, ...]:
    """Recordings in a folder that its manifest does not name; none where there is no manifest.

    Args:
        root: The folder.
        table: What the manifest says.
        links: Whether symbolic links may lead out of the folder.

    Raises:
        DataError: A link leads out of the folder.
    """
    if manifest_of(root) is None:
        return ()
    named = {file for row in table.rows for file in row.files.values()}
    return tuple(printable(str(path)) for path in recordings(root, links=links) if path not in named)


def unlisted_said(manifest: str, names: Sequence[str]) -> str:
    """That a manifest does not name recordings, and how they are taken in."""
    count = f"{len(names)} recording{'' if len(names) == 1 else 's'}"
    more = "" if len(names) <= _FAULTS_SHOWN else ", ..."
    return (
        f"{count} that {manifest} does not name, not used: {', '.join(names[:_FAULTS_SHOWN])}{more}; to take them in "
        f"add rows, or delete {manifest} and write it and the recipe anew: kd-edge data init DIR --force"
    )


def some_pictures(
    dataset: Files, modality: str, seconds: float, clips: int = 12
) -> list[npt.NDArray[np.uint8] | npt.NDArray[np.uint16]]:
    """A picture of the beginning and one of the middle of so many recordings, evenly spread.

    Args:
        dataset: The folder, opened.
        modality: Which pictures.
        seconds: How long a recording about is.
        clips: How many; what of them cannot be read is left out.

    Returns:
        (H, W) or (H, W, 3) each.
    """
    rows = [row for row in dataset.rows if modality in row.files]
    media, pictures = dataset.media(modality), []
    for row in rows[:: max(1, len(rows) // clips)][:clips]:
        late = dataset.settings.of(modality).offset_s + row.offsets_s.get(modality, 0.0)
        for moment in (0.0, seconds / 2):
            start = max(0.0, row.start_s - late + moment)
            with suppress(DataError):  # it is among the damaged, or shorter
                pictures.append(media.read(dataset.root / row.files[modality], start, start + 0.1).frames[0])
    return pictures


def _headers(dataset: Files, progress: Callable[[int, int], None] | None) -> _Headers:
    """Headers of each modality's files, or what is wrong with them."""
    files = {m: sorted({row.files[m] for row in dataset.rows if m in row.files}) for m in dataset.modalities}
    wanted = [(m, path) for m, paths in files.items() for path in paths]
    wanted = wanted[:: -(-len(wanted) // MOST_HEADERS)]
    found: dict[str, dict[PurePosixPath, Header | DataError]] = {m: {} for m in files}
    pool = ThreadPoolExecutor(min(THREADS, usable_cores() + 1), thread_name_prefix="kd-edge header")
    try:
        running = {pool.submit(_header, dataset, m, path): (m, path) for m, path in wanted}
        for done, future in enumerate(as_completed(running), 1):
            m, path = running[future]
            found[m][path] = future.result()
            if progress is not None:
                progress(done, len(wanted))
    finally:  # Ctrl-C must not wait for thousands of files
        pool.shutdown(wait=True, cancel_futures=True)
    return {m: dict(sorted(its.items())) for m, its in found.items()}


def _header(dataset: Files, modality: str, path: PurePosixPath) -> Header | DataError:
    try:
        return dataset.media(modality).header(dataset.root / path)
    except DataError as error:
        return error


def _require_inside(dataset: Files, headers: _Headers) -> None:
    """Raise a DataError where a piece begins or ends after its recording has ended."""
    faults = []
    for row in dataset.rows:
        for modality, path in row.files.items():
            header = headers[modality].get(path)
            late = dataset.settings.of(modality).offset_s + row.offsets_s.get(modality, 0.0)
            begin, end = row.start_s - late, None if row.end_s is None else row.end_s - late
            if not isinstance(header, Header) or header.seconds <= 0:
                continue
            if begin > header.seconds or (end or 0.0) > header.seconds + LATE_SECONDS:
                piece = f"{begin:g} s to {'its end' if end is None else f'{end:g} s'}"
                where = f"line {row.line}: " if row.line else ""
                faults.append(
                    f"{where}{printable(str(path))} lasts {header.seconds:.2f} s, its piece goes from {piece}"
                )
    if faults:
        more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise DataError(
            f"{dataset.root}: {'; '.join(faults[:_FAULTS_SHOWN])}{more}",
            "pieces inside their recordings",
            "correct start_s and end_s in the manifest",
        )


def _modality(dataset: Files, name: str, headers: Mapping[PurePosixPath, Header | DataError]) -> ModalitySurvey:
    """All about one modality.

    Raises:
        DataError: Its files hold different things.
    """
    sound = {path: header for path, header in headers.items() if isinstance(header, Header)}
    _require_alike(dataset, name, sound)
    rows = [row for row in dataset.rows if name in row.files]
    is_picture = any(header.size for header in sound.values())
    settings = dataset.settings.of(name)
    readable = [row for row in rows if row.files[name] in sound]
    actions = [row for row in readable if row.label != dataset.settings.background] or readable
    lengths = [_seconds(row, sound[row.files[name]]) for row in actions]
    rates = [header.fps for header in sound.values() if header.fps > 0]
    fps = _spread(rates)
    sizes = Counter(header.size for header in sound.values() if header.size)
    return ModalitySurvey(
        name=name,
        band=(settings.band or band_of(name)) if is_picture else None,
        dtype=next((header.dtype for header in sound.values()), ""),
        sizes=tuple(Size(*size, files) for size, files in sizes.most_common()),
        fps=fps,
        clips=len(rows),
        files=len({row.files[name] for row in rows}),
        opened=len(headers),
        damaged={printable(str(p)): printable(why.found) for p, why in headers.items() if isinstance(why, DataError)},
        seconds=_spread(lengths),
        frames=round(_spread(lengths).median * fps.median),
    )


def _require_alike(dataset: Files, name: str, headers: Mapping[PurePosixPath, Header]) -> None:
    kinds: dict[tuple[str, bool], list[PurePosixPath]] = defaultdict(list)
    for path, header in headers.items():
        kinds[header.dtype, header.size is not None].append(path)
    if len(kinds) > 1:
        said = "; ".join(
            f"{len(paths)} of {dtype} {'pictures' if is_picture else 'signals'} ({printable(str(paths[0]))})"
            for (dtype, is_picture), paths in sorted(kinds.items(), key=lambda item: -len(item[1]))
        )
        raise DataError(
            f"the {name} files of {dataset.root} are mixed: {said}",
            "one type",
            "convert some, or give them a modality of their own",
        )
    wanted = dataset.settings.of(name).dtype
    for dtype, _ in kinds:
        if wanted is not None and dtype != wanted:
            raise DataError(
                f"dtype of [modality.{name}] in dataset.toml is {wanted}, its {len(headers)} files hold {dtype}",
                "what the files hold",
                f"set it to {dtype}, or leave it out",
            )


def _no_pictures(dataset: Files, modalities: Iterable[ModalitySurvey]) -> DataError:
    damaged = [(file, why) for m in modalities for file, why in m.damaged.items()]
    if damaged:
        return DataError(
            f"no picture of {dataset.root} can be read: {len(damaged)} damaged files, the first: {damaged[0][1]}",
            "recordings that can be decoded",
            "fetch them again, or convert them, for example with ffmpeg",
        )
    return DataError(
        f"{dataset.root} holds signals only ({', '.join(dataset.modalities)})", "pictures to train on", "add them"
    )


def _seconds(row: Row, header: Header) -> float:
    """How long a labelled piece is; whole recordings to the end of their last frame."""
    whole = header.seconds + (1 / header.fps if header.fps > 0 else 0.0)
    return max(0.0, (whole if row.end_s is None else row.end_s) - row.start_s)


def _lengths(dataset: Files, headers: _Headers) -> dict[str, float]:
    """Sample id -> seconds, by the first of its files that was opened."""
    lengths: dict[str, float] = {}
    for row in dataset.rows:
        found = (headers[m].get(path) for m, path in row.files.items())
        header = next((header for header in found if isinstance(header, Header)), None)
        if header is not None:
            lengths[row.id] = _seconds(row, header)
    return lengths


def _classes(dataset: Files, lengths: Mapping[str, float]) -> Iterator[ClassSurvey]:
    rows = defaultdict[str, list[Row]](list)
    for row in dataset.rows:
        rows[row.label].append(row)
    for label in dataset.labels:
        its = rows[label]
        seconds = _spread([lengths[row.id] for row in its if row.id in lengths])
        yield ClassSurvey(label, len(its), tuple(_counted(row.subject for row in its if row.subject)), seconds)


def _sides(dataset: Files) -> tuple[str, dict[str, Side], list[str]]:
    """Name and sides of the first split that can be trained, and what to know of it.

    Raises:
        DataError: None can, or that of ``test_subjects`` in ``dataset.toml`` cannot: another protocol than the one
            that somebody has written down is none of ours to take.
    """
    notes: list[str] = []
    for name in (dataset.splits()[0], dataset.splits()[1]):
        try:
            split = dataset.split(name)
        except DataError as error:
            if dataset.settings.test_subjects is not None:
                raise
            fault = error
            notes.append(f"split '{name}' cannot be trained: {error.found}; {_INSTEAD}")
            continue
        train, validation = training_sides(split, ())
        sides = {"train": train, "validation": validation, "test": split.test}
        if not validation:
            notes.append("nobody is left for validation: the last epoch is kept, and confidence is not calibrated")
        absent = sorted({s.label for s in train} - {s.label for s in split.test})
        if absent:
            notes.append(f"classes without a test clip: {listed(dataset.labels[k] for k in absent)}")
        return (
            name,
            {side: Side(len(its), tuple(_counted(s.subject for s in its if s.subject))) for side, its in sides.items()},
            notes,
        )
    raise fault


def _few_subjects(dataset: Files) -> Iterator[str]:
    """Classes that few people perform; those of one alone are among the data set's own remarks."""
    subjects = defaultdict[str, set[str]](set)
    for row in dataset.rows:
        subjects[row.label] |= {row.subject} - {""}
    few = {label: len(names) for label, names in sorted(subjects.items()) if 1 < len(names) < FEW_SUBJECTS}
    if few:
        yield f"classes that fewer than {FEW_SUBJECTS} subjects perform: {listed(few)}"


def _counted(names: Iterable[str]) -> dict[str, int]:
    """How often each occurs, numbers in their order."""
    return dict(sorted(Counter(names).items(), key=lambda item: (len(item[0]), item[0])))


def _spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(0.0, 0.0, 0.0)
    return Spread(*(round(float(value), 3) for value in np.percentile(values, (5, 50, 95))))
