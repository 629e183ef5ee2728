"""Nagoya University far-infrared actions: five actions under a 16x16 thermal array on the ceiling; four days.

Source: Kawashima, Kawanishi, Ide, Murase, Deguchi, Aizawa, Kawade, "Action recognition from extremely low-resolution
thermal image sequence", AVSS 2017; version 2018 of the data, CC BY-NC-SA 4.0: no commercial use, derived works under
the same licence.

Annotations number the frames of a file; it is not documented whether from 0 or from 1. They are read as counted from 1:
no number is 0, and the movement between the frames of an action, relative to that of the neighbouring stopping, grows
if all annotations are shifted to earlier frames by up to two and falls if they are shifted to later ones, so of the two
readings the earlier one fits better. The difference hardly matters: four ends in ten are multiples of five, so they
were not marked more precisely.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from kd_edge.data.dataset import ActionInterval, ImageFormat, Sample, Split, listed, require_modality
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.readers.thermal_csv import UNIT, VERSION, read_thermal, start_up
from kd_edge.data.splits import check_split, require_split, split_by_subject
from kd_edge.errors import DataError, did_you_mean, printable, reason
from kd_edge.reading import read_bytes
from kd_edge.types import Clip

LABELS = ("walking", "sitting down", "standing up", "falling down", "stopping")
"""The five actions that the documentation groups the annotated tags into."""

TAGS = {
    "walk": 0, "walk1": 0, "walk2": 0, "sitdown": 1, "standup": 2, "falling1": 3, "falling2": 3,
    "sit": 4, "stand": 4, "lie": 4,
}  # fmt: skip
"""Annotated tag -> index in ``LABELS``."""

DAYS = ("20170203", "20170206", "20170209", "20170210")
"""Days of recording, each with different people."""

OFFICIAL_SEGMENTS = {"20170203": 560, "20170206": 560, "20170209": 560, "20170210": 840}
"""Annotated actions of each day of the complete data set."""

MODALITY = "fir"
FPS = 9.0
"""Typical frame rate, 1/s; the documentation says 10, the median of the time columns is 8.95."""

_FORMAT = ImageFormat("lwir", "uint16", 1, UNIT, (28_500.0, 31_500.0), FPS)
_FILE = re.compile(r"(\d{8})_(p\d+_(?:light|dark)\d+)\.csv")
_SUBJECT = re.compile(r"human(\d{1,3})")
_ANNOTATION_BYTES = 4_000_000
_FIELDS = "file,start,end,action,subject"


class FirAction:
    """Reader of the original ``DATE/raw/DATE_pN_{light,dark}K.csv`` and ``annotation/annotation_DATE_human.csv``.

    Modality: ``fir`` (T, 16, 16) uint16 in centikelvin, each frame stamped by its time column. A sample is one line of
    an annotation; its id consists of the recording and the number of the action: ``20170203_p1_light2_03``. Its trial
    is the recording without the day (layout, lighting, scenario). Mirroring changes no class; neither do rotations by
    any angle, because the camera looks straight down.

    Args:
        root: The data set's folder.
        hash_memo: File that caches content hashes between runs; None hashes the files each time.

    Raises:
        DataError: The folder is missing, empty or of something else; an annotation is missing or invalid.
    """

    name = "fir_action"
    labels = LABELS
    modalities = (MODALITY,)
    flip_labels: tuple[int, ...] | None = tuple(range(len(LABELS)))

    def __init__(self, root: Path, hash_memo: Path | None = None) -> None:
        self.root = root
        self._hashes = FileHashes(hash_memo)
        self._days = _recorded_days(root)
        self._actions: dict[str, ActionInterval] = {}
        self._last: tuple[Path, Clip] | None = None  # samples of a recording are usually opened in turn
        self._annotated = tuple(
            self._add(stem, row, subject, action)
            for day in self._days
            for stem, actions in _read_annotation(_annotation(root, day), day).items()
            for row, (subject, action) in enumerate(actions, 1)
        )
        self.samples = tuple(s for s in self._annotated if self.path(s, MODALITY).is_file())

    def path(self, sample: Sample, modality: str) -> Path:
        """Return the file of the recording that a sample is cut from, whether it exists or not."""
        require_modality(modality, self.modalities, self.name)
        stem = recording_of(sample)
        return self.root / stem[:8] / "raw" / f"{stem}.csv"

    def interval(self, sample: Sample) -> ActionInterval:
        """Return the frame range of a sample in its recording, counted from the start-up of the sensor."""
        return self._actions[sample.id]

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode the annotated frames; see ``Dataset.open``."""
        path, action = self.path(sample, modality), self.interval(sample)
        whole = self._recording(path)
        if action.end >= len(whole):
            raise DataError(
                f"{path} has {len(whole)} frames, {sample.id} ends at frame {action.end + 1}",
                "an annotation inside the recording",
                "fetch the recording or its annotation again; training continues without it",
            )
        return _from(whole, action.start, action.end + 1)

    def sequences(self, samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], ...]:
        """See ``Sequences.sequences``."""
        return tuple(tuple(group) for _, group in groupby(sorted(samples, key=lambda s: s.id), recording_of))

    def sequence(self, samples: Sequence[Sample], modality: str) -> tuple[Clip, tuple[ActionInterval, ...]]:
        """See ``Sequences.sequence``."""
        whole = self._recording(self.path(samples[0], modality))
        first = start_up(whole.frames)
        actions = (self.interval(sample) for sample in samples)
        shifted = tuple(ActionInterval(a.label, a.start - first, a.end - first) for a in actions)
        return _from(whole, first, len(whole)), shifted

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the recording, and the interval; see ``Dataset.content_key``."""
        action = self.interval(sample)
        return f"{self._hashes.sha256(self.path(sample, modality))}-{action.start}-{action.end}-thermal{VERSION}"

    def image_format(self, modality: str) -> ImageFormat:
        """See ``Dataset.image_format``."""
        require_modality(modality, self.modalities, self.name)
        return _FORMAT

    def gaps(self) -> dict[str, str]:
        """Annotated actions whose recording is missing; see ``Dataset.gaps``."""
        present = {s.id for s in self.samples}
        return {s.id: "no file" for s in self._annotated if s.id not in present}

    def remarks(self) -> tuple[str, ...]:
        """Counts against the complete data set, recordings without annotations, licence; see ``Dataset.remarks``."""
        remarks = [
            f"{len(self._days)} of {len(DAYS)} days, {len(self.samples):,} of {sum(OFFICIAL_SEGMENTS.values()):,} "
            "annotated actions of the complete data set",
            "CC BY-NC-SA 4.0: not for commercial use; cite Kawashima et al., AVSS 2017",
        ]
        annotated = {recording_of(s) for s in self._annotated}
        found = {path.stem for day in self._days for path in (self.root / day / "raw").glob("*.csv")}
        if found - annotated:
            remarks.append(f"not read, without annotations: {listed(sorted(found - annotated))}")
        return tuple(remarks)

    def splits(self) -> tuple[str, ...]:
        """``day_DATE``: that day and its people left out; ``dark``: trained in daylight, tested at night."""
        return (*(f"day_{day}" for day in DAYS), "dark")

    def split(self, name: str) -> Split:
        """See ``Dataset.split``."""
        require_split(name, self.splits(), self.name)
        if name == "dark":
            at_night = [s for s in self.samples if "_dark" in s.trial]
            split = Split(name, tuple(s for s in self.samples if s not in at_night), tuple(at_night))
        else:
            day = name.removeprefix("day_")
            split = split_by_subject(name, self.samples, {s.subject for s in self.samples if s.id.startswith(day)})
        check_split(split, self.labels, by_subject=name != "dark")
        return split

    def _recording(self, path: Path) -> Clip:
        if self._last is None or self._last[0] != path:
            self._last = path, read_thermal(path)
        return self._last[1]

    def _add(self, stem: str, row: int, subject: str, action: ActionInterval) -> Sample:
        sample = Sample(f"{stem}_{row:02d}", subject, "ceiling", stem[9:], action.label)
        self._actions[sample.id] = action
        return sample


def recording_of(sample: Sample) -> str:
    """Return the name of the recording that a sample is cut from."""
    return sample.id.rpartition("_")[0]


def _from(whole: Clip, start: int, stop: int) -> Clip:
    """Cut frames out of a recording; their stamps begin at 0."""
    stamps_ns = whole.stamps_ns[start:stop]
    return Clip(whole.frames[start:stop], stamps_ns - stamps_ns[0])


def _recorded_days(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataError(f"no folder {root}", "the far-infrared action data set's folder", "correct --data")
    days = tuple(day for day in DAYS if (root / day / "raw").is_dir())
    if days:
        return days
    inside = sorted(p.name for p in root.iterdir())
    archive = next((name for name in inside if name.endswith((".tar.xz", ".tar.gz", ".zip"))), None)
    fix = "give the data set's own folder as --data, or one that contains it as fir-action/"
    if archive is not None:
        fix = f"extract the archive and give that folder as --data: tar -xf {printable(archive)} -C FOLDER"
    raise DataError(
        f"no recording in {root} (it contains {', '.join(map(printable, inside[:5])) or 'nothing'})",
        "DATE/raw/DATE_pN_light1.csv and annotation/annotation_DATE_human.csv",
        fix,
    )


def _annotation(root: Path, day: str) -> Path:
    return root / "annotation" / f"annotation_{day}_human.csv"


def _read_annotation(path: Path, day: str) -> dict[str, list[tuple[str, ActionInterval]]]:
    """(subject, frames) of every recording's actions in temporal order, by recording name."""
    try:
        text = read_bytes(path, _ANNOTATION_BYTES).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", "the actions of that day", "fetch the folder annotation/ too") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or reason(error)
        raise DataError(f"cannot read {path} ({why})", f"text, {_FIELDS} on each line", "fetch it again") from error
    found: dict[str, list[tuple[str, ActionInterval]]] = {}
    for number, row in enumerate(rows, 1):
        if any(row):
            stem, subject, action = _parse(path, number, row, day)
            found.setdefault(stem, []).append((subject, action))
    return {stem: sorted(found[stem], key=_by_time) for stem in sorted(found, key=_by_number)}


def _parse(path: Path, line: int, row: list[str], day: str) -> tuple[str, str, ActionInterval]:
    if len(row) != _FIELDS.count(",") + 1:
        raise _wrong(path, line, f"{len(row)} fields", _FIELDS)
    name, start, end, tag, human = (field.strip() for field in row)
    named, subject = _FILE.fullmatch(name), _SUBJECT.fullmatch(human)
    if named is None or named[1] != day:
        raise _wrong(path, line, f"file '{name}'", f"{day}_pN_light1.csv or _dark1.csv")
    if not (start.isdecimal() and end.isdecimal() and len(start) <= 9 >= len(end) and 1 <= int(start) <= int(end)):
        raise _wrong(path, line, f"frames {start} to {end}", "two frame numbers from 1, the end not before the start")
    if tag not in TAGS:
        raise _wrong(path, line, f"action '{tag}'{did_you_mean(tag, TAGS)}", f"one of {', '.join(TAGS)}")
    if subject is None:
        raise _wrong(path, line, f"subject '{human}'", "human and a number")
    return f"{day}_{named[2]}", subject[1], ActionInterval(TAGS[tag], int(start) - 1, int(end) - 1)


def _by_time(action: tuple[str, ActionInterval]) -> tuple[int, int]:
    return action[1].start, action[1].end


def _by_number(stem: str) -> list[tuple[str, int]]:
    """Sort key that puts p2 before p10."""
    return [(word, int(digits)) for word, digits in re.findall(r"([a-z_]*)(\d+)", stem)]


def _wrong(path: Path, line: int, found: str, expected: str) -> DataError:
    return DataError(f"{path}, line {line}: {printable(found[:120])}", expected, "fetch it again, or correct the line")
