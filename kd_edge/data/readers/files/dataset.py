"""A folder of your own recordings as a data set."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from kd_edge.data.dataset import UNLABELLED, ImageFormat, Probe, Sample, SignalFormat, Split, listed, require_modality
from kd_edge.data.readers.colours import is_coloured, is_grey
from kd_edge.data.readers.files.folders import find_rows
from kd_edge.data.readers.files.imports import foreign
from kd_edge.data.readers.files.media import ANY_HEIGHT_PX, Media, Values
from kd_edge.data.readers.files.names import other_spellings, person, strays
from kd_edge.data.readers.files.rows import Row, Table, manifest_of, plain, read_manifest
from kd_edge.data.readers.files.settings import DEFAULT_FPS, Settings, read_settings, unused
from kd_edge.data.readers.files.sides import background, by_clip, by_subject, default_sides, in_order, notable
from kd_edge.data.readers.files.skeletons import DRAWN, SKELETON, Drawn, Skeletons
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.readers.sidecar import beside
from kd_edge.data.splits import check_split, require_split
from kd_edge.errors import DataError, did_you_mean, printable
from kd_edge.types import Clip

DEFAULT_SPLIT = "default"
BY_CLIP = "clips"
_END_MARGIN_S = 0.001  # keeps the last frame inside, however its stamp was rounded
TRIED = 10
"""How many files of a modality are tried until one can be read."""
FIRST_S = 0.03
"""Upper bound on the time of a clip's first picture, in seconds."""


class Files:
    """Your own recordings, read from ``manifest.csv`` or ``.jsonl`` if present, otherwise from class folders.

    Recordings without a label (empty in the manifest, outside any class folder, or in a folder ``unlabelled``) are not
    in ``samples``; a student's dense stage still uses them, see ``unlabelled``.

    Splits come from ``test_subjects`` in ``dataset.toml``, otherwise from the manifest's column ``split`` or the
    folders ``train/``, ``val/``, ``test/``. Otherwise the last quarter of the subjects (words sorted alphabetically,
    numbers by value) is the test side, or the last quarter of each class's clips if subjects are unknown. If no
    validation side is given, it is taken from the training side in the same way; if only the validation side is given,
    the test side is taken from the training side.

    Args:
        root: The folder.
        decode_height_px: Higher pictures, except depth, are scaled down to this height while decoding.
        hash_memo: File that caches content hashes between runs; None hashes the files each time.
        settings: Used instead of ``dataset.toml``.
        table: Used instead of the manifest or the folders.
        label: The single class of all recordings, overriding folders, names and manifest; empty to read it from them.

    Raises:
        DataError: The folder is missing or has no recordings, the manifest is invalid, or there are fewer than two
            classes.
        ConfigError: ``dataset.toml`` is invalid.
    """

    def __init__(
        self,
        root: Path,
        *,
        decode_height_px: int = 480,
        hash_memo: Path | None = None,
        settings: Settings | None = None,
        table: Table | None = None,
        label: str = "",
    ) -> None:
        if not root.is_dir():
            raise DataError(f"no folder {root}", "a folder of recordings", "correct --data")
        self.root = root
        settings = read_settings(root) if settings is None else settings
        if label:  # settings about several classes do not apply to a single one
            settings = settings.model_copy(update={"labels": (label,), "background": None, "mirror": None})
        self._settings = settings
        table = read_table(root, settings, label or None) if table is None else table
        self._hashes = FileHashes(hash_memo)
        self.name = _file_name(settings.name or root.resolve().name)
        self.table = table
        rows, without = [row for row in table.rows if row.label], [row for row in table.rows if not row.label]
        self._height = decode_height_px
        self._media = {name: reader_of(name, settings, decode_height_px) for name in table.modalities}
        rows += background(table.rows, settings.background, self.end)
        if not rows:
            raise _unlabelled(root, table)
        names = table.modalities
        if isinstance(skeletons := self._media.get(SKELETON), Skeletons) and DRAWN not in names:
            self._media[DRAWN] = Drawn(skeletons, settings.of(SKELETON))
            names, rows = (*names, DRAWN), [_with_drawing(row) for row in rows]
            without = [_with_drawing(row) for row in without]
        self.labels = (label,) if label else _labels(rows, settings, root)
        self._rows = {row.id: row for row in sorted(rows, key=lambda row: row.id)}
        self.samples = tuple(
            Sample(row.id, row.subject, row.view, row.trial, self.labels.index(row.label))
            for row in self._rows.values()
        )
        self._unlabelled = {row.id: row for row in sorted(without, key=lambda row: row.id)}
        self.unlabelled = tuple(
            Sample(row.id, row.subject, row.view, row.trial, UNLABELLED) for row in self._unlabelled.values()
        )
        self.modalities = tuple(name for name in names if any(name in row.files for row in rows))
        self.flip_labels = _flip_labels(self.labels, settings)
        self._firsts: dict[str, tuple[Path, Values]] = {}

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per sample, in sample order: the labelled rows of the table and the background rows of the gaps."""
        return tuple(self._rows.values())

    @property
    def settings(self) -> Settings:
        """Content of ``dataset.toml``."""
        return self._settings

    def between(self) -> tuple[Row, ...]:
        """The unlabelled gaps of long recordings, which ``background`` turns into a class."""
        return tuple(background(self.table.rows, self._settings.background or "none", self.end))

    def media(self, modality: str) -> Media:
        """Return the reader of a modality's files."""
        require_modality(modality, self.modalities, self.name)
        return self._media[modality]

    @property
    def sensors(self) -> tuple[str, ...]:
        """Modalities that are three-axis signals; see ``Wearables.sensors``."""
        return tuple(filter(self._is_sensor, self.modalities))

    def path(self, sample: Sample, modality: str) -> Path:
        """Return the file or folder that a modality of a sample is read from.

        Raises:
            DataError: The sample lacks the modality.
        """
        require_modality(modality, self.modalities, self.name)
        found = self._row(sample).files.get(modality)
        if found is None:
            raise DataError(f"{printable(sample.id)} has no {modality}", "a file of it", "add one, or train without it")
        return self.root / found

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip; see ``Dataset.open``."""
        path = self.path(sample, modality)
        start, end = self._piece(sample, modality)
        if end is not None and end <= max(0.0, start):
            raise DataError(
                f"{path} begins after the piece of {printable(sample.id)} has ended",
                "a piece inside the recording",
                "correct end_s or the offset",
            )
        clip = self._media[modality].read(path, max(0.0, start), end)
        expected = self._settings.of(modality).dtype or self._first(modality)[1].dtype
        if str(clip.frames.dtype) != expected:
            raise DataError(f"{path} is {clip.frames.dtype}, {modality} is {expected}", "one type", "convert it")
        return clip if start >= 0 else Clip(clip.frames, clip.stamps_ns - round(start * 1e9))

    def probe(self, sample: Sample, modality: str) -> Probe:
        """Read the length from the header; see ``Probed.probe``."""
        whole = self._media[modality].probe(self.path(sample, modality))
        start, end = self._piece(sample, modality)
        if end is None and start <= 0:
            return whole
        seconds = (whole.seconds if end is None else min(end, whole.seconds)) - max(0.0, start)
        return Probe(max(0, round(seconds * _rate(whole))), max(0.0, seconds))

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the file or folder, the piece and the reader's settings; see ``Dataset.content_key``."""
        path = self.path(sample, modality)
        is_folder = path.is_dir()
        files = sorted(p for p in path.iterdir() if not p.name.startswith(".")) if is_folder else [path, beside(path)]
        content = [(p.name if is_folder else "", self._hashes.sha256(p)) for p in files if p.is_file()]
        settings = [self._piece(sample, modality), self._media[modality].key, self._settings.of(modality).dtype]
        return hashlib.sha256(json.dumps([content, settings]).encode()).hexdigest()

    def image_format(self, modality: str) -> ImageFormat:
        """Format from ``dataset.toml``, the modality's name and its first file; see ``Dataset.image_format``."""
        require_modality(modality, self.modalities, self.name)
        file, values = self._first(modality)
        if not values.is_picture:
            pictures = [name for name in self.modalities if self._first(name)[1].is_picture]
            raise DataError(
                f"modality '{modality}' of {self.name} is a signal", "an image modality", f"use {listed(pictures)}"
            )
        settings = self._settings.of(modality)
        fps = _rate(self._media[modality].probe(file)) or settings.fps or DEFAULT_FPS
        return settings.format(modality, settings.dtype or values.dtype, fps)

    def signal_format(self, sensor: str) -> SignalFormat:
        """See ``Wearables.signal_format``; the range is that of ``dataset.toml``, or twice that of the first file."""
        require_modality(sensor, self.sensors, self.name)
        settings = self._settings.of(sensor)
        if settings.range is not None:
            return SignalFormat(settings.unit or "1", settings.range, settings.rate_hz)
        largest = float(np.abs(self._media[sensor].read(self._first(sensor)[0]).frames).max()) or 1.0
        return SignalFormat(settings.unit or "1", (-2 * largest, 2 * largest), settings.rate_hz)

    def gaps(self) -> dict[str, str]:
        """See ``Dataset.gaps``; always empty, because the manifest defines the complete data set."""
        return {}

    def remarks(self) -> tuple[str, ...]:
        """See ``Dataset.remarks``."""
        notes = notable(tuple(self._rows.values()), self.modalities, self._settings)
        without_effect = unused(self._settings, self.modalities, {row.label for row in self._rows.values()})
        return (*self.table.remarks, *notes, *without_effect, *self._converted())

    def splits(self) -> tuple[str, ...]:
        """``default`` (see the class), ``clips`` (a quarter of each class), and ``subject_NAME`` left out."""
        subjects = in_order(self.rows)
        left_out = [f"subject_{name}" for name in subjects] if len(subjects) > 1 else []
        return (DEFAULT_SPLIT, BY_CLIP, *left_out)

    def split(self, name: str) -> Split:
        """See ``Dataset.split``."""
        require_split(name, self.splits(), self.name)
        rows = tuple(self._rows.values())
        if name == DEFAULT_SPLIT:
            chosen = default_sides(rows, self._settings)
        elif name == BY_CLIP:
            chosen = by_clip(rows)
        else:
            chosen = by_subject(rows, [name.removeprefix("subject_")])
        train, validation, test = (
            tuple(s for s in self.samples if chosen[s.id] == side) for side in ("train", "val", "test")
        )
        split = Split(name, train, test, validation)
        check_split(split, self.labels, by_subject=False)
        return split

    def unlabelled_apart_from(self, held_out: Sequence[Sample]) -> tuple[Sample, ...]:
        """See ``PartlyLabelled.unlabelled_apart_from``; rows of the validation or test side are excluded."""
        subjects = {person(sample.subject) for sample in held_out if sample.subject}
        files = {path for sample in held_out for path in self._row(sample).files.values()}

        def is_apart(row: Row) -> bool:
            is_known = bool(row.subject) and person(row.subject) in subjects
            return row.split in ("", "train") and not is_known and files.isdisjoint(row.files.values())

        return tuple(sample for sample in self.unlabelled if is_apart(self._unlabelled[sample.id]))

    def end(self, row: Row) -> float | None:
        """Time at which the shortest of a row's files ends, on the row's clock; None if a header cannot be read."""
        with suppress(DataError):
            ends = [self._media[n].probe(self.root / f).seconds + self._offset(row, n) for n, f in row.files.items()]
            return min(ends) + _END_MARGIN_S
        return None

    def _row(self, sample: Sample) -> Row:
        return (self._unlabelled if sample.label == UNLABELLED else self._rows)[sample.id]

    def _offset(self, row: Row, modality: str) -> float:
        """Offset of a modality's file from the row's clock, in seconds; positive if the file begins later."""
        is_drawn = isinstance(self._media[modality], Drawn)
        return self._settings.of(SKELETON if is_drawn else modality).offset_s + row.offsets_s.get(modality, 0.0)

    def _piece(self, sample: Sample, modality: str) -> tuple[float, float | None]:
        """Start and end of a sample in a modality's file, in seconds; negative if the file begins later."""
        row = self._row(sample)
        offset = self._offset(row, modality)
        return row.start_s - offset, None if row.end_s is None else row.end_s - offset

    def _is_sensor(self, modality: str) -> bool:
        with suppress(DataError):  # an unreadable file is reported when it is opened
            return self._first(modality)[1].axes == 3
        return False

    def _converted(self) -> Iterator[str]:
        """Remarks on modalities whose pictures reading converts to grey or colour, judged by the first picture."""
        for name in self.modalities:
            if type(self._media.get(name)) is not Media:  # skeletons are drawn
                continue
            settings = self._settings.of(name)
            with suppress(DataError):  # an unreadable file is reported when it is opened
                file, values = self._first(name)
                if not values.is_picture or values.dtype != "uint8":
                    continue
                picture = Media(settings, 3, self._height).read(file, 0.0, FIRST_S).frames[0]
                if settings.channels(name) == 1 and is_coloured(picture):
                    keep = f"to keep the colour, set band = 'rgb' below [modality.{name}] in dataset.toml"
                    yield f"{name} is in colour ({file.name}) and read as grey: {keep}"
                elif settings.channels(name) == 3 and is_grey(picture):
                    yield f"{name} is grey ({file.name}) and read as three equal channels"

    def _first(self, modality: str) -> tuple[Path, Values]:
        """The first readable file of a modality and its values, taken as those of all its files."""
        if modality not in self._firsts:
            files = [self.root / row.files[modality] for row in self._rows.values() if modality in row.files]
            for file in files[:TRIED]:
                with suppress(DataError):
                    self._firsts[modality] = (file, self._media[modality].values(file))
                    break
            else:
                self._firsts[modality] = (files[0], self._media[modality].values(files[0]))
        return self._firsts[modality]


def reader_of(name: str, settings: Settings, decode_height_px: int) -> Media:
    """Return the reader of a modality's files."""
    modality = settings.of(name)
    if name == SKELETON:
        return Skeletons(modality)
    # A reader does not know how to treat holes: depth is resized only by the preprocessing, as in live use.
    height = ANY_HEIGHT_PX if modality.band_for(name) == "depth" else decode_height_px
    return Media(modality, modality.channels(name), height)


def _with_drawing(row: Row) -> Row:
    """Add the modality of drawn skeletons to a row; it is read from the skeleton's file."""
    if SKELETON not in row.files:
        return row
    offsets = {DRAWN: row.offsets_s[SKELETON]} if SKELETON in row.offsets_s else {}
    files = {**row.files, DRAWN: row.files[SKELETON]}
    return replace(row, files=files, offsets_s={**row.offsets_s, **offsets})


def read_table(root: Path, settings: Settings, label: str | None = None) -> Table:
    """Return the rows of a folder's manifest, or of its class folders.

    Args:
        root: The folder.
        settings: Its ``dataset.toml``.
        label: Class of all rows; empty leaves rows without a manifest unlabelled, ignoring folder and file names.

    Raises:
        DataError: There are no recordings, the manifest is invalid, or a list has to be imported first.
        ConfigError: The file names are ambiguous without a pattern.
    """
    manifest, named = manifest_of(root), tuple(settings.modality)
    if manifest is not None:
        table = read_manifest(manifest, named, links=settings.links)
        return replace(table, rows=tuple(replace(row, label=label) for row in table.rows)) if label else table
    if described := foreign(root):
        raise DataError(
            f"{root} is described by {described}", "a manifest.csv", f"create one with kd-edge data import {root}"
        )
    table = find_rows(root, settings.pattern, named, links=settings.links, label=label)
    return _with_one_name_each(table if settings.pattern else _with_strays(table))


def _with_one_name_each(table: Table) -> Table:
    """Unify the spelling of subjects read from file names: people write ``s1``, machines ``S01``."""
    spelled = other_spellings(row.subject for row in table.rows)
    if not spelled:
        return table
    rows = tuple(replace(row, subject=spelled.get(row.subject, row.subject)) for row in table.rows)
    pairs = [f"{printable(name)} is {printable(first)}" for name, first in spelled.items()]
    remark = f"subjects that differ only by capitals or leading zeros are one person: {listed(pairs)}"
    return replace(table, rows=rows, remarks=(*table.remarks, remark))


def _with_strays(table: Table) -> Table:
    """Add a remark on file names that keep the subjects from being recognised."""
    rows = [row for row in table.rows if row.label]
    if any(row.subject for row in rows):
        return table
    names = [row.id.removeprefix(f"{row.split}/").removeprefix(f"{row.label}/") for row in rows]
    found = strays([row.label for row in rows], names)
    if not found:
        return table
    remark = f"most names contain a subject, but {len(found)} of {len(rows)} do not: {listed(found[:3])}; rename them"
    return replace(table, remarks=(*table.remarks, remark))


def _rate(length: Probe) -> float:
    """Frames per second; 0 if there are too few."""
    return round((length.frames - 1) / length.seconds, 3) if length.seconds > 0 else 0.0


def _file_name(text: str) -> str:
    """Make a text safe for use in the name of a cache folder."""
    return re.sub(r"[^\w.-]+", "_", text)[:64].lstrip(".") or "files"


def _labels(rows: Sequence[Row], settings: Settings, root: Path) -> tuple[str, ...]:
    """Return the class names in order.

    Raises:
        DataError: There are fewer than two, or one is missing from ``labels`` in ``dataset.toml``.
    """
    present = {row.label for row in rows}
    _require_unlike(sorted(present), root)
    known = settings.labels or tuple(sorted(present, key=_in_order))
    if settings.background in present and settings.background not in known:
        known = (*known, settings.background)
    unknown = sorted(present - set(known))
    if unknown:
        raise DataError(
            f"{root} has the class {listed(map(printable, unknown))}{did_you_mean(unknown[0], known)}",
            f"one of labels in dataset.toml: {', '.join(known)}",
            "correct it, or add it to labels",
        )
    if len(present) < 2:
        raise DataError(
            f"{root} has one class, '{printable(next(iter(present)))}'",
            "at least two classes",
            "sort recordings into a folder for each class, or fill in label in the manifest",
        )
    return known


def _unlabelled(root: Path, table: Table) -> DataError:
    """The error for a folder without labelled recordings; images directly in a class folder are the likely reason."""
    paths = [path for row in table.rows for path in row.files.values()]
    if loose := next((path for path in paths if len(path.parts) == 1 and (root / path).is_dir()), None):
        return DataError(
            f"{root} has images in {printable(str(loose))} without a class folder above it",
            f"a folder for each clip, {printable(str(loose))}/CLIP/0001.png: an action is more than one image",
            "move the images of each clip into a folder of its own",
        )
    return DataError(
        f"{root} has no labelled recording",
        "at least two classes",
        "sort recordings into a folder for each class, or fill in label in the manifest",
    )


def _in_order(label: str) -> tuple[int, str]:
    """Sort key: by name, numbers by value."""
    return (int(label), "") if label.isdecimal() and len(label) < 10 else (-1, label)


def _require_unlike(labels: Sequence[str], root: Path) -> None:
    """Raise a DataError if two class names differ only in capitals, blanks, ``_`` or ``-``."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(plain(label), label)
        if other != label:
            raise DataError(
                f"{root} has the classes '{printable(other)}' and '{printable(label)}'",
                "names that differ by more than capitals and blanks",
                "give them one name, or two that differ",
            )


def _flip_labels(labels: Sequence[str], settings: Settings) -> tuple[int, ...] | None:
    if settings.mirror is None:
        return None
    mirrored = {label: opposite for pair in settings.mirror for label, opposite in (pair, pair[::-1])}
    unknown = sorted(mirrored.keys() - set(labels))
    if unknown:
        raise DataError(
            f"mirror in dataset.toml names {listed(unknown)}", f"classes: {', '.join(labels)}", "correct mirror"
        )
    return tuple(labels.index(mirrored.get(label, label)) for label in labels)
