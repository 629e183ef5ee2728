"""A folder of one's own recordings as a data set."""

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
_PAST_THE_LAST_S = 0.001  # so that the last frame is inside, however its stamp was rounded
TRIED = 10
"""So many files of a modality are tried for one that can be read."""
FIRST_S = 0.03
"""The first picture of a clip lies before that."""


class Files:
    """One's own recordings: ``manifest.csv`` or ``.jsonl`` where there is one, else folders of classes.

    What has no label (an empty one in the manifest, no folder of a class, or a folder ``unlabelled``) is none of the
    samples; a student's dense stage sees it all the same, see ``unlabelled``.

    Sides come from ``test_subjects`` in ``dataset.toml``, else from the manifest's column ``split`` or the folders
    ``train/``, ``val/``, ``test/``; else the last quarter of the subjects (words by the alphabet, numbers by their
    value) is the test side, and where subjects are not known the last quarter of each class's clips. Where nothing
    names the validation side, it is made of the training side in the same way; where it is named and the test side is
    not, the test side is made of the training side.

    Args:
        root: The folder.
        decode_height_px: Higher pictures are scaled down to this height while decoding, but for depth.
        hash_memo: File that remembers content hashes between runs; None hashes the files anew.
        settings: Taken in the place of ``dataset.toml``.
        table: Taken in the place of the manifest or the folders.
        label: The one class of all there is, whatever folders, names and manifest say; empty: as they say.

    Raises:
        DataError: Nothing there, a faulty manifest, fewer than two classes.
        ConfigError: A faulty ``dataset.toml``.
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
        if label:  # what is said of several classes is not of this one
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
        """A row for each sample, in their order: the labelled ones of the table, and those of the gaps."""
        return tuple(self._rows.values())

    @property
    def settings(self) -> Settings:
        """What ``dataset.toml`` says."""
        return self._settings

    def between(self) -> tuple[Row, ...]:
        """The pieces of long recordings that nobody has labelled: what ``background`` makes a class of."""
        return tuple(background(self.table.rows, self._settings.background or "none", self.end))

    def media(self, modality: str) -> Media:
        """Reader of a modality's files."""
        require_modality(modality, self.modalities, self.name)
        return self._media[modality]

    @property
    def sensors(self) -> tuple[str, ...]:
        """Modalities that are signals of three axes; see ``Wearables.sensors``."""
        return tuple(filter(self._is_sensor, self.modalities))

    def path(self, sample: Sample, modality: str) -> Path:
        """File or folder that a modality of a sample is read from.

        Raises:
            DataError: It has none.
        """
        require_modality(modality, self.modalities, self.name)
        found = self._row(sample).files.get(modality)
        if found is None:
            raise DataError(f"{printable(sample.id)} has no {modality}", "a file of it", "add one, or train without it")
        return self.root / found

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip; see ``Dataset.open``."""
        path = self.path(sample, modality)
        begin, end = self._piece(sample, modality)
        if end is not None and end <= max(0.0, begin):
            raise DataError(
                f"{path} begins after the piece of {printable(sample.id)} has ended",
                "a piece inside the recording",
                "correct end_s or the offset",
            )
        clip = self._media[modality].read(path, max(0.0, begin), end)
        wanted = self._settings.of(modality).dtype or self._first(modality)[1].dtype
        if str(clip.frames.dtype) != wanted:
            raise DataError(f"{path} is {clip.frames.dtype}, {modality} is {wanted}", "one type", "convert it")
        return clip if begin >= 0 else Clip(clip.frames, clip.stamps_ns - round(begin * 1e9))

    def probe(self, sample: Sample, modality: str) -> Probe:
        """Length by the header; see ``Probed.probe``."""
        whole = self._media[modality].probe(self.path(sample, modality))
        begin, end = self._piece(sample, modality)
        if end is None and begin <= 0:
            return whole
        seconds = (whole.seconds if end is None else min(end, whole.seconds)) - max(0.0, begin)
        return Probe(max(0, round(seconds * _rate(whole))), max(0.0, seconds))

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the file or folder, of the piece and of how it is read; see ``Dataset.content_key``."""
        path = self.path(sample, modality)
        is_folder = path.is_dir()
        files = sorted(p for p in path.iterdir() if not p.name.startswith(".")) if is_folder else [path, beside(path)]
        content = [(p.name if is_folder else "", self._hashes.sha256(p)) for p in files if p.is_file()]
        settings = [self._piece(sample, modality), self._media[modality].key, self._settings.of(modality).dtype]
        return hashlib.sha256(json.dumps([content, settings]).encode()).hexdigest()

    def image_format(self, modality: str) -> ImageFormat:
        """What ``dataset.toml`` says, else by the modality's name and its first file; see ``Dataset.image_format``."""
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
        """See ``Wearables.signal_format``; the range that ``dataset.toml`` says, else twice that of the first file."""
        require_modality(sensor, self.sensors, self.name)
        settings = self._settings.of(sensor)
        if settings.range is not None:
            return SignalFormat(settings.unit or "1", settings.range, settings.rate_hz)
        largest = float(np.abs(self._media[sensor].read(self._first(sensor)[0]).frames).max()) or 1.0
        return SignalFormat(settings.unit or "1", (-2 * largest, 2 * largest), settings.rate_hz)

    def gaps(self) -> dict[str, str]:
        """See ``Dataset.gaps``; what a manifest does not name is not missed."""
        return {}

    def remarks(self) -> tuple[str, ...]:
        """See ``Dataset.remarks``."""
        noted = notable(tuple(self._rows.values()), self.modalities, self._settings)
        idle = unused(self._settings, self.modalities, {row.label for row in self._rows.values()})
        return (*self.table.remarks, *noted, *idle, *self._converted())

    def splits(self) -> tuple[str, ...]:
        """``default`` (see the class), ``clips`` (a quarter of each class), ``subject_NAME`` left out."""
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
        """See ``PartlyLabelled.unlabelled_apart_from``; rows that name the side of validation or test are none."""
        subjects = {person(sample.subject) for sample in held_out if sample.subject}
        files = {path for sample in held_out for path in self._row(sample).files.values()}

        def is_apart(row: Row) -> bool:
            is_known = bool(row.subject) and person(row.subject) in subjects
            return row.split in ("", "train") and not is_known and files.isdisjoint(row.files.values())

        return tuple(sample for sample in self.unlabelled if is_apart(self._unlabelled[sample.id]))

    def end(self, row: Row) -> float | None:
        """Where the shortest of a row's files ends, on the row's clock; None where a header does not tell."""
        with suppress(DataError):
            ends = [self._media[n].probe(self.root / f).seconds + self._late(row, n) for n, f in row.files.items()]
            return min(ends) + _PAST_THE_LAST_S
        return None

    def _row(self, sample: Sample) -> Row:
        return (self._unlabelled if sample.label == UNLABELLED else self._rows)[sample.id]

    def _late(self, row: Row, modality: str) -> float:
        """How much later than the row's clock a modality's file begins, s."""
        is_drawn = isinstance(self._media[modality], Drawn)
        return self._settings.of(SKELETON if is_drawn else modality).offset_s + row.offsets_s.get(modality, 0.0)

    def _piece(self, sample: Sample, modality: str) -> tuple[float, float | None]:
        """Where a sample begins and ends in a modality's file, s; before 0 where the file begins later than it."""
        row = self._row(sample)
        late = self._late(row, modality)
        return row.start_s - late, None if row.end_s is None else row.end_s - late

    def _is_sensor(self, modality: str) -> bool:
        with suppress(DataError):  # of what cannot be read nobody knows; who opens it is told
            return self._first(modality)[1].axes == 3
        return False

    def _converted(self) -> Iterator[str]:
        """Modalities whose pictures become grey or colour by being read: by the first picture as it is in colour."""
        for name in self.modalities:
            if type(self._media.get(name)) is not Media:  # skeletons, which are drawn
                continue
            settings = self._settings.of(name)
            with suppress(DataError):  # of what cannot be read nobody knows; who opens it is told
                file, values = self._first(name)
                if not values.is_picture or values.dtype != "uint8":
                    continue
                picture = Media(settings, 3, self._height).read(file, 0.0, FIRST_S).frames[0]
                if settings.channels(name) == 1 and is_coloured(picture):
                    keep = f"band = 'rgb' below [modality.{name}] in dataset.toml keeps it"
                    yield f"{name} is in colour ({file.name}) and read as grey: {keep}"
                elif settings.channels(name) == 3 and is_grey(picture):
                    yield f"{name} is grey ({file.name}) and read as three equal channels"

    def _first(self, modality: str) -> tuple[Path, Values]:
        """The first readable file of a modality, and what it holds: what all the others hold too."""
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
    """What reads a modality's files."""
    its = settings.of(name)
    if name == SKELETON:
        return Skeletons(its)
    # a reader does not know whether holes count: depth is resized once, by the preprocessing, as it is live
    height = ANY_HEIGHT_PX if its.band_for(name) == "depth" else decode_height_px
    return Media(its, its.channels(name), height)


def _with_drawing(row: Row) -> Row:
    """With the pictures that are drawn of its skeleton: they lie in the same file."""
    if SKELETON not in row.files:
        return row
    offsets = {DRAWN: row.offsets_s[SKELETON]} if SKELETON in row.offsets_s else {}
    files = {**row.files, DRAWN: row.files[SKELETON]}
    return replace(row, files=files, offsets_s={**row.offsets_s, **offsets})


def read_table(root: Path, settings: Settings, label: str | None = None) -> Table:
    """The rows of a folder's manifest, or of its folders.

    Args:
        root: The folder.
        settings: Its ``dataset.toml``.
        label: Class of all of them; empty leaves those without a manifest without one, whatever folders and names tell.

    Raises:
        DataError: Nothing there, a faulty manifest, or a list that is to be imported first.
        ConfigError: Names that a pattern has to tell apart.
    """
    manifest, named = manifest_of(root), tuple(settings.modality)
    if manifest is not None:
        table = read_manifest(manifest, named, links=settings.links)
        return replace(table, rows=tuple(replace(row, label=label) for row in table.rows)) if label else table
    if described := foreign(root):
        raise DataError(
            f"{root} is described by {described}", "a manifest.csv", f"kd-edge data import {root} makes one of it"
        )
    table = find_rows(root, settings.pattern, named, links=settings.links, label=label)
    return _with_one_name_each(table if settings.pattern else _with_strays(table))


def _with_one_name_each(table: Table) -> Table:
    """With one spelling of each subject, where names of files tell it: people do not write ``s1`` as a machine does."""
    spelled = other_spellings(row.subject for row in table.rows)
    if not spelled:
        return table
    rows = tuple(replace(row, subject=spelled.get(row.subject, row.subject)) for row in table.rows)
    pairs = [f"{printable(name)} is {printable(first)}" for name, first in spelled.items()]
    remark = f"subjects that differ by capitals or zeros before a number only are one person: {listed(pairs)}"
    return replace(table, rows=rows, remarks=(*table.remarks, remark))


def _with_strays(table: Table) -> Table:
    """With a remark on names that keep it from being known who performs."""
    rows = [row for row in table.rows if row.label]
    if any(row.subject for row in rows):
        return table
    names = [row.id.removeprefix(f"{row.split}/").removeprefix(f"{row.label}/") for row in rows]
    found = strays([row.label for row in rows], names)
    if not found:
        return table
    remark = f"most names tell who performs, but {len(found)} of {len(rows)} do not: {listed(found[:3])}; rename them"
    return replace(table, remarks=(*table.remarks, remark))


def _rate(length: Probe) -> float:
    """Frames per second; 0 where there are too few."""
    return round((length.frames - 1) / length.seconds, 3) if length.seconds > 0 else 0.0


def _file_name(text: str) -> str:
    """A name that may be part of a cache folder's."""
    return re.sub(r"[^\w.-]+", "_", text)[:64].lstrip(".") or "files"


def _labels(rows: Sequence[Row], settings: Settings, root: Path) -> tuple[str, ...]:
    """Class names in their order.

    Raises:
        DataError: Fewer than two, or one that ``dataset.toml`` does not know.
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
    """Nothing to train on; where images lie in a folder of their class themselves, that is the likely reason."""
    paths = [path for row in table.rows for path in row.files.values()]
    if loose := next((path for path in paths if len(path.parts) == 1 and (root / path).is_dir()), None):
        return DataError(
            f"{root} has images in {printable(str(loose))}, and no folder of a class above it",
            f"a folder for each clip, {printable(str(loose))}/CLIP/0001.png: an action is more than one image",
            "sort the images of each clip into one",
        )
    return DataError(
        f"{root} has no labelled recording",
        "at least two classes",
        "sort recordings into a folder for each class, or fill in label in the manifest",
    )


def _in_order(label: str) -> tuple[int, str]:
    """Sorted by name, numbers by their value."""
    return (int(label), "") if label.isdecimal() and len(label) < 10 else (-1, label)


def _require_unlike(labels: Sequence[str], root: Path) -> None:
    """Raise a DataError where two classes are one but for capitals, blanks and what stands for blanks."""
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
    turned = {one: other for pair in settings.mirror for one, other in (pair, pair[::-1])}
    unknown = sorted(turned.keys() - set(labels))
    if unknown:
        raise DataError(
            f"mirror in dataset.toml names {listed(unknown)}", f"classes: {', '.join(labels)}", "correct mirror"
        )
    return tuple(labels.index(turned.get(label, label)) for label in labels)
