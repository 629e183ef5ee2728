"""A folder of one's own recordings as a data set."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from kd_edge.data.dataset import ImageFormat, Probe, Sample, SignalFormat, Split, listed, require_modality
from kd_edge.data.readers.files.folders import find_rows
from kd_edge.data.readers.files.media import Media, kind_of
from kd_edge.data.readers.files.rows import Row, Table, manifest_of, read_manifest
from kd_edge.data.readers.files.settings import Settings, read_settings
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.splits import check_split, require_split
from kd_edge.errors import DataError, did_you_mean, printable
from kd_edge.types import Clip

DEFAULT_SPLIT = "default"
BY_CLIP = "clips"
TEST_SHARE = 4
"""One subject in so many, or one clip of each class, is held out where nothing says which."""
LEAST_GAP_S = 0.5
"""A shorter pause between two labelled pieces is none of the background."""


class Files:
    """One's own recordings: ``manifest.csv`` or ``.jsonl`` where there is one, else folders of classes.

    Sides come from ``test_subjects`` in ``dataset.toml``, else from the manifest's column ``split`` or the folders
    ``train/``, ``val/``, ``test/``; else the last quarter of the subjects is the test side, and where subjects are not
    known the last quarter of each class's clips.

    Args:
        root: The folder.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
        hash_memo: File that remembers content hashes between runs; None hashes the files anew.

    Raises:
        DataError: Nothing there, a faulty manifest, fewer than two classes.
        ConfigError: A faulty ``dataset.toml``.
    """

    def __init__(self, root: Path, *, decode_height_px: int = 480, hash_memo: Path | None = None) -> None:
        if not root.is_dir():
            raise DataError(f"no folder {root}", "a folder of recordings", "correct --data")
        self.root, self._height = root, decode_height_px
        self.settings = read_settings(root)
        manifest = manifest_of(root)
        table = (
            find_rows(root, self.settings.pattern)
            if manifest is None
            else read_manifest(manifest, self.settings.modality)
        )
        self._hashes = FileHashes(hash_memo)
        self.name = self.settings.name or root.resolve().name or "files"
        self.modalities = table.modalities
        self._remarks = list(table.remarks)
        rows = [row for row in table.rows if row.label]
        rows += _background(rows, self.settings.background)
        self.labels = _labels(rows, self.settings, root)
        self._rows = {row.id: row for row in sorted(rows, key=lambda row: row.id)}
        self.samples = tuple(self._sample(row) for row in self._rows.values())
        self.flip_labels = _flip_labels(self.labels, self.settings)
        self._media = {name: self._media_of(name) for name in self.modalities}
        self._formats: dict[str, ImageFormat] = {}

    @cached_property
    def sensors(self) -> tuple[str, ...]:
        """Modalities that are signals of three axes; see ``Wearables.sensors``."""
        return tuple(name for name in self.modalities if self._is_signal(name))

    def path(self, sample: Sample, modality: str) -> Path:
        """File that a modality of a sample is read from.

        Raises:
            DataError: It has none.
        """
        require_modality(modality, self.modalities, self.name)
        found = self._rows[sample.id].files.get(modality)
        if found is None:
            raise DataError(
                f"{sample.id} has no {modality}", "its file", f"add one in column {modality}, or train without it"
            )
        return self.root / found

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip; see ``Dataset.open``."""
        path, row = self.path(sample, modality), self._rows[sample.id]
        late = self.settings.of(modality).offset_s + row.offsets_s.get(modality, 0.0)
        begin = max(0.0, row.start_s - late)
        clip = self._media[modality].read(path, begin, None if row.end_s is None else row.end_s - late)
        wanted = self._dtype(modality)
        if str(clip.frames.dtype) != wanted:
            raise DataError(
                f"{path} is {clip.frames.dtype}, other {modality} files are {wanted}", "one type", "convert it"
            )
        return clip

    def probe(self, sample: Sample, modality: str) -> Probe:
        """Length by the header; see ``Probed.probe``."""
        row, whole = self._rows[sample.id], self._media[modality].probe(self.path(sample, modality))
        if row.end_s is None and not row.start_s:
            return whole
        seconds = (whole.seconds if row.end_s is None else min(row.end_s, whole.seconds)) - row.start_s
        rate = (whole.frames - 1) / whole.seconds if whole.seconds > 0 else 0.0
        return Probe(max(0, round(seconds * rate)), max(0.0, seconds))

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the file or folder, of the piece and of how it is read; see ``Dataset.content_key``."""
        path, row = self.path(sample, modality), self._rows[sample.id]
        if path.is_dir():
            digest = hashlib.sha256()
            for file in sorted(path.iterdir()):
                if not file.name.startswith(".") and file.is_file():
                    digest.update(f"{file.name} {self._hashes.sha256(file)}\n".encode("utf-8", "surrogateescape"))
            content = digest.hexdigest()
        else:
            content = self._hashes.sha256(path)
        late = self.settings.of(modality).offset_s + row.offsets_s.get(modality, 0.0)
        return f"{content}-{row.start_s}-{row.end_s}-{late}-{self._media[modality].key}"

    def image_format(self, modality: str) -> ImageFormat:
        """What ``dataset.toml`` says, else by the modality's name and its first file; see ``Dataset.image_format``."""
        require_modality(modality, self.modalities, self.name)
        if self._is_signal(modality):
            pictures = [m for m in self.modalities if not self._is_signal(m)]
            raise DataError(
                f"modality '{modality}' of {self.name} is a signal", "an image modality", f"use {listed(pictures)}"
            )
        if modality not in self._formats:
            settings, first = self.settings.of(modality), self._first(modality)
            probe = self._media[modality].probe(first)
            fps = settings.fps or ((probe.frames - 1) / probe.seconds if probe.seconds > 0 else 30.0)
            self._formats[modality] = settings.format(modality, self._dtype(modality), fps)
        return self._formats[modality]

    def signal_format(self, sensor: str) -> SignalFormat:
        """See ``Wearables.signal_format``; the range that ``dataset.toml`` says, else that of the first file."""
        require_modality(sensor, self.sensors, self.name)
        settings = self.settings.of(sensor)
        if settings.range is not None:
            return SignalFormat(settings.unit or "1", settings.range, settings.rate_hz)
        largest = float(np.abs(self._media[sensor].read(self._first(sensor)).frames).max()) or 1.0
        return SignalFormat(settings.unit or "1", (-2 * largest, 2 * largest), settings.rate_hz)

    def gaps(self) -> dict[str, str]:
        """See ``Dataset.gaps``; what a manifest does not name is not missed."""
        return {}

    def remarks(self) -> tuple[str, ...]:
        """See ``Dataset.remarks``."""
        return (*self._remarks, *_notable(list(self._rows.values()), self.modalities, self.settings))

    def splits(self) -> tuple[str, ...]:
        """``default`` (see the class), ``clips`` (a quarter of each class), ``subject_NAME`` left out."""
        subjects = sorted({row.subject for row in self._rows.values() if row.subject})
        left_out = [f"subject_{name}" for name in subjects] if len(subjects) > 1 else []
        return (DEFAULT_SPLIT, BY_CLIP, *left_out)

    def split(self, name: str) -> Split:
        """See ``Dataset.split``."""
        require_split(name, self.splits(), self.name)
        rows = list(self._rows.values())
        if name == DEFAULT_SPLIT:
            sides = _sides(rows, self.settings)
        elif name == BY_CLIP:
            sides = _by_clip(rows)
        else:
            sides = {row.id: "test" if row.subject == name.removeprefix("subject_") else "train" for row in rows}
        chosen = {
            side: tuple(s for s in self.samples if sides[s.id] == side) for side in ("train", "val", "test")
        }
        split = Split(name, chosen["train"], chosen["test"], chosen["val"])
        check_split(split, self.labels, by_subject=False)
        return split

    def _sample(self, row: Row) -> Sample:
        return Sample(row.id, row.subject, row.view, row.trial, self.labels.index(row.label))

    def _media_of(self, modality: str) -> Media:
        settings = self.settings.of(modality)
        channels: Literal[1, 3] = 3 if settings.format(modality, "uint8", 30.0).band == "rgb" else 1
        return Media(settings, channels, self._height)

    def _first(self, modality: str) -> Path:
        """The first file of a modality that is there and known."""
        files = (row.files[modality] for row in self._rows.values() if modality in row.files)
        return self.root / next(files)

    def _is_signal(self, modality: str) -> bool:
        first = self._first(modality)
        return kind_of(first) == "signal" or self._media[modality].dtype(first).startswith("float")

    def _dtype(self, modality: str) -> str:
        first = self._first(modality)
        return "float32" if self._is_signal(modality) else self._media[modality].dtype(first)


def _labels(rows: Sequence[Row], settings: Settings, root: Path) -> tuple[str, ...]:
    """Class names in their order.

    Raises:
        DataError: Fewer than two, or one that ``dataset.toml`` does not know.
    """
    present = {row.label for row in rows}
    known = settings.labels or tuple(sorted(present))
    unknown = sorted(present - set(known))
    if unknown:
        raise DataError(
            f"{root} has the class {listed(map(printable, unknown))}{did_you_mean(unknown[0], known)}",
            f"one of labels in dataset.toml: {', '.join(known)}",
            "correct it, or add it to labels",
        )
    if len(present) < 2:
        raise DataError(
            f"{root} has {f"one class, '{printable(next(iter(present)))}'" if present else 'no labelled recording'}",
            "at least two classes",
            "sort recordings into a folder for each class, or fill in label in the manifest",
        )
    return known


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


def _background(rows: Sequence[Row], label: str | None) -> Iterator[Row]:
    """What lies before and between the labelled pieces of long recordings, in parts about as long as a piece."""
    if label is None:
        return
    lengths = [row.end_s - row.start_s for row in rows if row.end_s is not None]
    usual = float(np.median(lengths)) if lengths else 0.0
    recordings = defaultdict[tuple[tuple[str, PurePosixPath], ...], list[Row]](list)
    for row in rows:
        recordings[tuple(sorted(row.files.items()))].append(row)
    for its in recordings.values():
        pieces = sorted((row for row in its if row.end_s is not None), key=lambda row: row.start_s)
        since = 0.0
        for row in pieces:
            if len(its) == len(pieces):
                yield from _parts(row, label, since, row.start_s, usual)
            since = max(since, row.end_s or 0.0)


def _parts(row: Row, label: str, begin: float, end: float, usual: float) -> Iterator[Row]:
    """A gap before a piece in equal parts."""
    if end - begin < max(LEAST_GAP_S, usual / 4):
        return
    count = max(1, round((end - begin) / usual))
    for k in range(count):
        start = begin + (end - begin) * k / count
        stop = begin + (end - begin) * (k + 1) / count
        yield replace(row, id=f"{row.id}-before-{k}", label=label, start_s=round(start, 6), end_s=round(stop, 6))




def _sides(rows: Sequence[Row], settings: Settings) -> dict[str, str]:
    """Row id -> ``train``, ``val`` or ``test`` by the first rule that applies."""
    subjects = sorted({row.subject for row in rows if row.subject})
    if settings.test_subjects is not None:
        absent = sorted(set(settings.test_subjects) - set(subjects))
        if absent:
            raise DataError(
                f"test_subjects in dataset.toml names {listed(absent)}", f"some of {', '.join(subjects)}", "correct it"
            )
        return _by_subject(rows, settings.test_subjects)
    if any(row.split for row in rows):
        return {row.id: row.split or "train" for row in rows}
    if len(subjects) > 1:
        return _by_subject(rows, subjects[-max(1, len(subjects) // TEST_SHARE) :])
    return _by_clip(rows)


def _by_subject(rows: Sequence[Row], held_out: Sequence[str]) -> dict[str, str]:
    return {row.id: "test" if row.subject in held_out else row.split if row.split == "val" else "train" for row in rows}


def _by_clip(rows: Sequence[Row]) -> dict[str, str]:
    """The last quarter of each class's recordings; pieces of one recording stay together where they can."""
    sides = {}
    for label in {row.label for row in rows}:
        its = sorted((row for row in rows if row.label == label), key=lambda row: row.id)
        test = max(1, len(its) // TEST_SHARE) if len(its) > 1 else 0
        sides |= {row.id: "test" if k >= len(its) - test else "train" for k, row in enumerate(its)}
    return sides


def _notable(rows: Sequence[Row], modalities: Sequence[str], settings: Settings) -> Iterator[str]:
    """What to know before training."""
    subjects = defaultdict[str, set[str]](set)
    for row in rows:
        subjects[row.label].add(row.subject)
    known = {row.subject for row in rows if row.subject}
    if len(known) < 2 and not any(row.split for row in rows):
        yield "nobody knows who performs what: one person's clips may lie on both sides (column subject)"
    elif lonely := sorted(label for label, names in subjects.items() if len(names) == 1):
        yield f"classes that one subject alone performs: {listed(lonely)}; they cannot be tested on another"
    counts = Counter(row.label for row in rows)
    (most, many), (least, few) = counts.most_common()[0], counts.most_common()[-1]
    if many > 3 * few:
        yield f"'{most}' has {many} recordings, '{least}' {few}: class_weights = 'balanced' in the recipe evens that"
    for name in modalities:
        having = sum(name in row.files for row in rows)
        if having < len(rows):
            yield f"{name} exists for {having} of {len(rows)} recordings"
    if settings.mirror is None:
        yield "pictures are not mirrored: mirror = [] in dataset.toml says that no class changes by it"
