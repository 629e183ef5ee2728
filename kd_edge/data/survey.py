"""Survey a folder of your own recordings before training: its content and its faults.

Only headers, several files at a time, and a handful of pictures are read.
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
"""At most this many files, evenly spread, are opened, because half a minute is too long for a first look."""
THREADS = 4
_FAULTS_SHOWN = 3
_INSTEAD = (
    "split 'clips' is used instead, with the last quarter of each class's clips as the test side: one person's clips "
    "may be on both sides, so the figures do not cover new people"
)


class Size(NamedTuple):
    """A picture size and the number of files that have it."""

    height_px: int
    width_px: int
    files: int


class Spread(NamedTuple):
    """Distribution of a value over recordings: 5th percentile, median, 95th percentile."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class ClassSurvey:
    """Survey of one class.

    Attributes:
        label: Name of the class.
        clips: Number of recordings.
        subjects: Known subjects who perform it.
        seconds: Duration of the recordings.
    """

    label: str
    clips: int
    subjects: tuple[str, ...]
    seconds: Spread


@dataclass(frozen=True, slots=True)
class ModalitySurvey:
    """Survey of one modality.

    Attributes:
        name: Name of the modality.
        band: Spectral band of the camera; None for signals.
        dtype: Type of a value.
        sizes: Picture sizes, most frequent first; empty for signals.
        fps: Frames per second.
        clips: Number of recordings that have it.
        files: Number of files that contain them.
        opened: Number of files whose header was read.
        damaged: File -> why it cannot be read.
        seconds: Duration of an action; background pieces count only if there are no others.
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
    """One side of the split that training would use.

    Attributes:
        clips: Number of recordings.
        subjects: Their known subjects.
    """

    clips: int
    subjects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Survey:
    """Result of ``survey``.

    Attributes:
        name: Name of the data set.
        source: What it was read from: a manifest, a list of another tool, or folders and names.
        clips: Number of labelled recordings.
        complete: Number of recordings with every modality.
        classes: Surveys in the order of the data set's labels.
        subjects: Subject -> number of recordings; empty if unknown.
        modalities: Surveys of the modalities, pictures first.
        paired: Modality -> another modality -> number of recordings with both.
        gaps: Total number of gaps between labelled pieces of recordings.
        gap_seconds: Total duration of the gaps.
        background: Class of the gaps in ``dataset.toml``; None if unset.
        split: Name of the split that training can use.
        sides: Its ``train``, ``validation`` and ``test``.
        unlisted: Recordings in the folder that the manifest does not name.
        remarks: Further remarks to read before training.
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
        """Return the modality of that name."""
        return next(m for m in self.modalities if m.name == name)

    @property
    def pictures(self) -> tuple[ModalitySurvey, ...]:
        """Modalities of pictures."""
        return tuple(m for m in self.modalities if m.band is not None)

    @property
    def damaged(self) -> dict[str, str]:
        """File -> why it cannot be read, over all modalities."""
        return {file: why for m in self.modalities for file, why in m.damaged.items()}


_Headers = Mapping[str, Mapping[PurePosixPath, Header | DataError]]
"""Headers, or the errors of reading them, by modality and file."""


def survey(dataset: Files, source: str, progress: Callable[[int, int], None] | None = None) -> Survey:
    """Survey a folder's recordings.

    Args:
        dataset: The opened folder.
        source: What it was read from, for the report.
        progress: Called with (files opened, total number of files).

    Raises:
        DataError: A piece extends past the end of its recording, a modality mixes types or kinds, no file of any
            modality can be read, or no split can be trained on.
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
    """Return the recordings in a folder that its manifest does not name; empty without a manifest.

    Args:
        root: The folder.
        table: Content of the manifest.
        links: Whether symbolic links may lead out of the folder.

    Raises:
        DataError: A link leads out of the folder.
    """
    if manifest_of(root) is None:
        return ()
    named = {file for row in table.rows for file in row.files.values()}
    return tuple(printable(str(path)) for path in recordings(root, links=links) if path not in named)


def unlisted_said(manifest: str, names: Sequence[str]) -> str:
    """Message about recordings that a manifest does not name, and how to add them."""
    count = f"{len(names)} recording{'' if len(names) == 1 else 's'}"
    more = "" if len(names) <= _FAULTS_SHOWN else ", ..."
    return (
        f"{count} that {manifest} does not name, not used: {', '.join(names[:_FAULTS_SHOWN])}{more}; to use them add "
        f"rows, or delete {manifest} and write it and the recipe again: kd-edge data init DIR --force"
    )


def some_pictures(
    dataset: Files, modality: str, seconds: float, clips: int = 12
) -> list[npt.NDArray[np.uint8] | npt.NDArray[np.uint16]]:
    """Read two pictures, from the beginning and the middle, of evenly spread recordings.

    Args:
        dataset: The opened folder.
        modality: Modality of the pictures.
        seconds: Approximate duration of a recording.
        clips: Number of recordings; unreadable pictures are left out.

    Returns:
        (H, W) or (H, W, 3) each.
    """
    rows = [row for row in dataset.rows if modality in row.files]
    media, pictures = dataset.media(modality), []
    for row in rows[:: max(1, len(rows) // clips)][:clips]:
        offset = dataset.settings.of(modality).offset_s + row.offsets_s.get(modality, 0.0)
        for moment in (0.0, seconds / 2):
            start = max(0.0, row.start_s - offset + moment)
            with suppress(DataError):  # damaged, or shorter than ``seconds``
                pictures.append(media.read(dataset.root / row.files[modality], start, start + 0.1).frames[0])
    return pictures


def _headers(dataset: Files, progress: Callable[[int, int], None] | None) -> _Headers:
    """Read the headers of each modality's files; errors take their place."""
    files = {m: sorted({row.files[m] for row in dataset.rows if m in row.files}) for m in dataset.modalities}
    chosen = [(m, path) for m, paths in files.items() for path in paths]
    chosen = chosen[:: -(-len(chosen) // MOST_HEADERS)]
    found: dict[str, dict[PurePosixPath, Header | DataError]] = {m: {} for m in files}
    pool = ThreadPoolExecutor(min(THREADS, usable_cores() + 1), thread_name_prefix="kd-edge header")
    try:
        running = {pool.submit(_header, dataset, m, path): (m, path) for m, path in chosen}
        for done, future in enumerate(as_completed(running), 1):
            m, path = running[future]
            found[m][path] = future.result()
            if progress is not None:
                progress(done, len(chosen))
    finally:  # Ctrl-C must not wait for thousands of files
        pool.shutdown(wait=True, cancel_futures=True)
    return {m: dict(sorted(headers.items())) for m, headers in found.items()}


def _header(dataset: Files, modality: str, path: PurePosixPath) -> Header | DataError:
    try:
        return dataset.media(modality).header(dataset.root / path)
    except DataError as error:
        return error


def _require_inside(dataset: Files, headers: _Headers) -> None:
    """Raise a DataError if a piece begins or ends after the end of its recording."""
    faults = []
    for row in dataset.rows:
        for modality, path in row.files.items():
            header = headers[modality].get(path)
            offset = dataset.settings.of(modality).offset_s + row.offsets_s.get(modality, 0.0)
            start, end = row.start_s - offset, None if row.end_s is None else row.end_s - offset
            if not isinstance(header, Header) or header.seconds <= 0:
                continue
            if start > header.seconds or (end or 0.0) > header.seconds + LATE_SECONDS:
                piece = f"{start:g} s to {'its end' if end is None else f'{end:g} s'}"
                where = f"line {row.line}: " if row.line else ""
                faults.append(
                    f"{where}{printable(str(path))} lasts {header.seconds:.2f} s, its piece extends from {piece}"
                )
    if faults:
        more = f"; and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
        raise DataError(
            f"{dataset.root}: {'; '.join(faults[:_FAULTS_SHOWN])}{more}",
            "pieces inside their recordings",
            "correct start_s and end_s in the manifest",
        )


def _modality(dataset: Files, name: str, headers: Mapping[PurePosixPath, Header | DataError]) -> ModalitySurvey:
    """Survey one modality.

    Raises:
        DataError: Its files contain different types.
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
        groups = "; ".join(
            f"{len(paths)} of {dtype} {'pictures' if is_picture else 'signals'} ({printable(str(paths[0]))})"
            for (dtype, is_picture), paths in sorted(kinds.items(), key=lambda item: -len(item[1]))
        )
        raise DataError(
            f"the {name} files of {dataset.root} are mixed: {groups}",
            "one type",
            "convert some, or give them another modality",
        )
    configured = dataset.settings.of(name).dtype
    for dtype, _ in kinds:
        if configured is not None and dtype != configured:
            raise DataError(
                f"dtype of [modality.{name}] in dataset.toml is {configured}, its {len(headers)} files contain {dtype}",
                "the type of the files",
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
        f"{dataset.root} contains only signals ({', '.join(dataset.modalities)})", "pictures to train on", "add them"
    )


def _seconds(row: Row, header: Header) -> float:
    """Duration of a labelled piece; whole recordings include the duration of their last frame."""
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
        of_class = rows[label]
        seconds = _spread([lengths[row.id] for row in of_class if row.id in lengths])
        subjects = tuple(_counted(row.subject for row in of_class if row.subject))
        yield ClassSurvey(label, len(of_class), subjects, seconds)


def _sides(dataset: Files) -> tuple[str, dict[str, Side], list[str]]:
    """Name and sides of the first split that can be trained on, and remarks on it.

    Raises:
        DataError: No split can be trained on, or that of ``test_subjects`` in ``dataset.toml`` cannot: a protocol that
            the user has chosen must not be replaced by another one.
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
            notes.append("no validation side: the last epoch is kept, and confidence is not calibrated")
        absent = sorted({s.label for s in train} - {s.label for s in split.test})
        if absent:
            notes.append(f"classes without a test clip: {listed(dataset.labels[k] for k in absent)}")
        return (
            name,
            {
                side: Side(len(samples), tuple(_counted(s.subject for s in samples if s.subject)))
                for side, samples in sides.items()
            },
            notes,
        )
    raise fault


def _few_subjects(dataset: Files) -> Iterator[str]:
    """Remark on classes performed by few people; those of a single one are in the data set's own remarks."""
    subjects = defaultdict[str, set[str]](set)
    for row in dataset.rows:
        subjects[row.label] |= {row.subject} - {""}
    few = {label: len(names) for label, names in sorted(subjects.items()) if 1 < len(names) < FEW_SUBJECTS}
    if few:
        yield f"classes performed by fewer than {FEW_SUBJECTS} subjects: {listed(few)}"


def _counted(names: Iterable[str]) -> dict[str, int]:
    """Number of occurrences of each name, shorter names first so that numbers are in order."""
    return dict(sorted(Counter(names).items(), key=lambda item: (len(item[0]), item[0])))


def _spread(values: Sequence[float]) -> Spread:
    if not values:
        return Spread(0.0, 0.0, 0.0)
    return Spread(*(round(float(value), 3) for value in np.percentile(values, (5, 50, 95))))
