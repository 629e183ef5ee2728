"""The labels of a folder: its manifest in memory, with edits, undo, and saving at each change."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from kd_edge.data.readers.files.appending import written_alone
from kd_edge.data.readers.files.dataset import read_table, reader_of
from kd_edge.data.readers.files.media import LATE_SECONDS, Header, Media
from kd_edge.data.readers.files.rows import MOST_BYTES, NAMES, Row, check_together, manifest_of, plain
from kd_edge.data.readers.files.settings import read_settings
from kd_edge.data.readers.files.skeletons import SKELETON
from kd_edge.data.readers.files.writing import RECORDER, manifest_bytes
from kd_edge.data.readers.seeking import seconds_by_packets
from kd_edge.errors import ConfigError, DataError, did_you_mean, printable
from kd_edge.files import held, replacing
from kd_edge.label.edits import Add, AddClass, Change, Delete, Describe, Edit
from kd_edge.label.frames import HEIGHT_PX
from kd_edge.label.recordings import (
    Recording,
    as_written,
    difference,
    in_time,
    is_bare,
    overlap,
    recordings_of,
    said_of,
    stem,
)
from kd_edge.reading import is_file, read_bytes

MOST_UNDONE = 1000
"""Number of changes that can be undone."""
_DIGITS = 6  # of seconds: stamps are compared to half a millisecond


class ConflictError(DataError):
    """The page shows an outdated revision; nothing was changed.

    Attributes:
        by: ``window``, where another one of this server has changed them, or ``disk``, where something else has.
    """

    by: Literal["window", "disk"] = "window"


class ChangedFileError(ConflictError):
    """The file has changed since it was read."""

    by = "disk"


class RefusedError(DataError):
    """A change that the data set's format does not allow; nothing was changed."""


class Track(NamedTuple):
    """Pictures of a recording in one modality.

    Attributes:
        modality: Its name.
        path: The file, or the folder of images.
        late_s: How much later than the recording's clock it begins.
    """

    modality: str
    path: Path
    late_s: float


class Done(NamedTuple):
    """Result of an edit.

    Attributes:
        said: A sentence.
        recording: Number of the recording that is another now; None where none is.
    """

    said: str
    recording: int | None = None


class _Step(NamedTuple):
    """A change of one recording that can be undone."""

    said: str
    recording: int
    before: tuple[Row, ...]
    after: tuple[Row, ...]


class Labels:
    """A folder's recordings with their labelled pieces.

    Whatever is changed is in ``manifest.csv`` (or ``.jsonl``, where there is one) before it can be seen. A change that
    was asked of other labels than the present ones, and one of a file that something else has written meanwhile, is a
    conflict: it is not made. Threads may share it.

    Args:
        root: The folder.
        fresh: Begin without the classes that folders and names tell.

    Raises:
        DataError: Nothing there, or a faulty manifest.
        ConfigError: A faulty ``dataset.toml``, or ``fresh`` where there is a manifest.
    """

    def __init__(self, root: Path, *, fresh: bool = False) -> None:
        if not root.is_dir():
            raise DataError(f"no folder {root}", "a folder of recordings", "correct DIR")
        if fresh and (there := manifest_of(root)) is not None:
            raise ConfigError(f"--fresh, and there is a {there.name}", "a folder without one", "leave --fresh out")
        self.root = root
        self.revision = 1
        self._fresh = fresh
        self._lock = threading.RLock()
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self._load()

    @property
    def file(self) -> Path:
        """Path of the manifest."""
        return manifest_of(self.root) or self.root / NAMES[0]

    @property
    def is_by_names(self) -> bool:
        """Whether labels come from folder and file names, because nothing was changed yet."""
        return not self._digest and bool(self._classes)

    @property
    def recordings(self) -> Sequence[Recording]:
        """All recordings, in the order of the manifest."""
        return tuple(self._recordings)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of ``dataset.toml`` in order, then those of existing pieces, then those added later.

        One keeps its place as long as the labels are not read anew: keys of the page go by it.
        """
        return tuple(self._classes)

    @property
    def undoable(self) -> str:
        """What ``undo`` would undo; empty if there is nothing."""
        return self._done[-1].said if self._done else ""

    @property
    def redoable(self) -> str:
        """What ``redo`` would redo; empty if there is nothing."""
        return self._undone[-1].said if self._undone else ""

    def tracks(self, number: int) -> tuple[Track, ...]:
        """Files with pictures of a recording, which excludes signals and skeletons."""
        row = self._recording(number).rows[0]
        return tuple(
            Track(name, self.root / path, self._settings.of(name).offset_s + row.offsets_s.get(name, 0.0))
            for name, path in row.files.items()
            if self.is_seen(name, self.root / path)
        )

    def is_seen(self, modality: str, path: Path) -> bool:
        """Whether a modality consists of pictures; an unreadable file counts as pictures, so that it is reported."""
        if modality == SKELETON:
            return False
        header = self._headers.get(path)
        if header is None:
            with suppress(DataError):
                header = self.header(modality, path)
        return header is None or header.size is not None

    def header(self, modality: str, path: Path) -> Header:
        """Header of a file; read once.

        Raises:
            DataError: Absent or damaged.
        """
        if path not in self._headers:
            header = self.media(modality).header(path)
            if header.size and not header.frames:  # its recorder was killed, or never knew
                header = header._replace(seconds=seconds_by_packets(path))
            self._headers[path] = header
        return self._headers[path]

    def media(self, modality: str) -> Media:
        """Reader of a modality's files, for display."""
        if modality not in self._media:
            self._media[modality] = reader_of(modality, self._settings, HEIGHT_PX)
        return self._media[modality]

    def seconds(self, number: int) -> float:
        """Duration of a recording on its clock, from the headers of its pictures; 0 if unknown.

        From the first frame to the last one: that of the longest of its files.
        """
        ends = [0.0]
        for track in self.tracks(number):
            with suppress(DataError):
                ends.append(self.header(track.modality, track.path).seconds + track.late_s)
        return max(ends)

    def labelled_s(self, number: int) -> float:
        """Labelled time of a recording in s; a piece without an end counts to the recording's end."""
        total, until = 0.0, 0.0
        for row in (row for row in self._recording(number).pieces if row.label):
            end = self.seconds(number) if row.end_s is None else row.end_s
            total += max(0.0, end - max(row.start_s, until))
            until = max(until, end)
        return total

    def apply(self, edit: Edit, revision: int) -> Done:
        """Apply an edit and save.

        Raises:
            ConflictError: Something else changed the labels since that revision.
            RefusedError: The format does not allow it, or ``kd-edge record`` adds rows at the moment.
            DataError: It cannot be saved.
        """
        with self._lock, self._alone():
            self._check_seen(revision)
            if isinstance(edit, AddClass):
                return self._add_class(edit.label)
            if isinstance(edit, Add):
                step = self._added_piece(edit)
            elif isinstance(edit, Change):
                step = self._changed_piece(edit)
            elif isinstance(edit, Delete):
                step = self._without_piece(edit)
            else:
                step = self._described(edit)
            if step.before == step.after:
                return Done("nothing to change")
            self._save(step.recording, step.after)
            for row in step.after:
                self._learn(row.label)
            self._done = [*self._done[-MOST_UNDONE + 1 :], step]
            self._undone = []
            return Done(step.said, step.recording)

    def undo(self, revision: int) -> Done | None:
        """Undo the last change and save; None if there is none.

        Raises:
            ConflictError: As ``apply``.
            DataError: As ``apply``.
        """
        with self._lock, self._alone():
            self._check_seen(revision)
            if not self._done:
                return None
            step = self._done[-1]
            self._save(step.recording, step.before)
            self._undone.append(self._done.pop())
            return Done(f"undone: {step.said}", step.recording)

    def redo(self, revision: int) -> Done | None:
        """Redo the change undone last and save; None if there is none.

        Raises:
            ConflictError: As ``apply``.
            DataError: As ``apply``.
        """
        with self._lock, self._alone():
            self._check_seen(revision)
            if not self._undone:
                return None
            step = self._undone[-1]
            self._save(step.recording, step.after)
            self._done.append(self._undone.pop())
            return Done(f"done again: {step.said}", step.recording)

    def reload(self) -> Done:
        """Reload from disk; earlier changes can no longer be undone.

        Raises:
            DataError: It is faulty; what was there before stays.
            ConfigError: As the class.
        """
        with self._lock:
            self._load()
            self.revision += 1
            return Done(f"read {self.file.name} anew")

    def _load(self) -> None:
        digest = self._on_disk()
        settings = read_settings(self.root)
        table = read_table(self.root, settings, "" if self._fresh else None)
        self._settings, self._digest = settings, digest
        self._recordings = list(recordings_of(table))
        used = {row.label for recording in self._recordings for row in recording.rows if row.label}
        self._classes = list(dict.fromkeys((*(settings.labels or ()), *sorted(used))))
        self._done, self._undone = [], []
        self._media: dict[str, Media] = {}
        self._headers: dict[Path, Header] = {}

    def _recording(self, number: int) -> Recording:
        if not 0 <= number < len(self._recordings):
            raise RefusedError(f"no recording of number {number}", f"one of {len(self._recordings)}", "reload the page")
        return self._recordings[number]

    def _piece(self, number: int, id_: str) -> Row:
        found = next((row for row in self._recording(number).pieces if row.id == id_), None)
        if found is None:
            raise RefusedError(f"no piece '{printable(id_[:80])}'", "one that is there", "reload the page")
        return found

    def _added_piece(self, edit: Add) -> _Step:
        rows = self._recording(edit.recording).rows
        before = [row for row in rows if row.start_s <= edit.start_s]
        model = before[-1] if before else rows[0]
        notes = {name: text for name, text in model.notes.items() if all(row.notes.get(name) == text for row in rows)}
        start_s, end_s = round(edit.start_s, _DIGITS), round(edit.end_s, _DIGITS)
        new = replace(
            model,
            id=self._free_id(model, start_s),
            label=edit.label,
            start_s=start_s,
            end_s=end_s,
            trial="",
            notes=notes,
            line=0,
        )
        self._check(edit.recording, new)
        others = [row for row in rows if not is_bare(row)]
        return _Step(f"{said_of(new)} added", edit.recording, rows, in_time([*others, new]))

    def _changed_piece(self, edit: Change) -> _Step:
        rows, old = self._recording(edit.recording).rows, self._piece(edit.recording, edit.id)
        new = replace(
            old,
            start_s=old.start_s if edit.start_s is None else round(edit.start_s, _DIGITS),
            end_s=old.end_s if edit.end_s is None else round(edit.end_s, _DIGITS),
            label=old.label if edit.label is None else edit.label,
            subject=old.subject if edit.subject is None else edit.subject,
            trial=old.trial if edit.trial is None else edit.trial,
        )
        if (old.label, old.start_s, old.end_s) != (new.label, new.start_s, new.end_s):
            self._check(edit.recording, new)
        after = tuple(new if row is old else row for row in rows)
        return _Step(f"{said_of(old)} changed{difference(old, new)}", edit.recording, rows, after)

    def _without_piece(self, edit: Delete) -> _Step:
        rows, old = self._recording(edit.recording).rows, self._piece(edit.recording, edit.id)
        after = tuple(row for row in rows if row is not old)
        if not after:
            bare = replace(old, label="", start_s=0.0, end_s=None, trial="", id=stem(old))
            after = (replace(bare, id=self._unique(bare.id, {old.id})),)
        return _Step(f"{said_of(old)} deleted", edit.recording, rows, after)

    def _described(self, edit: Describe) -> _Step:
        recording = self._recording(edit.recording)
        after = tuple(replace(row, subject=edit.subject) for row in recording.rows)
        return _Step(
            f"subject of {recording.name} is {edit.subject or 'nobody'}", edit.recording, recording.rows, after
        )

    def _add_class(self, label: str) -> Done:
        self._check_class(label)
        self._learn(label)
        return Done(f"class {label} added")

    def _learn(self, label: str) -> None:
        if label and label not in self._classes:
            self._classes.append(label)

    def _check_class(self, label: str) -> None:
        """Raise a RefusedError for a class that the reader would refuse."""
        alike = next((known for known in self.classes if known != label and plain(known) == plain(label)), None)
        if alike is not None:
            raise RefusedError(
                f"class '{label}' differs from '{alike}' by capitals or blanks only", "one name", f"take '{alike}'"
            )
        labels = self._settings.labels
        if labels is not None and label not in (*labels, self._settings.background):
            now = read_settings(self.root)  # who was told to add it there need not start again
            if now.labels is None or label in now.labels:
                self._settings = now
                return
            raise RefusedError(
                f"dataset.toml does not name the class '{label}'{did_you_mean(label, labels)}",
                f"one of {', '.join(labels)}",
                "add it to labels in dataset.toml",
            )

    def _check(self, number: int, new: Row) -> None:
        """Raise a RefusedError for a piece that the reader would refuse."""
        if new.label:
            self._check_class(new.label)
        if new.end_s is not None and new.end_s <= new.start_s:
            raise RefusedError(
                f"the piece ends at {new.end_s:.3f} s and begins at {new.start_s:.3f} s",
                "an end behind its beginning",
                "set the other end first",
            )
        length_s = self.seconds(number)
        if length_s and (new.start_s > length_s or (new.end_s or 0.0) > length_s + LATE_SECONDS):
            raise RefusedError(
                f"the recording lasts {length_s:.3f} s", "a piece inside it", "set its ends inside the recording"
            )
        for other in self._sharing(number, new):
            if other.id != new.id and other.label and new.label and overlap(new, other):
                self._check_beside(new, other)

    def _check_beside(self, new: Row, other: Row) -> None:
        if other.label != new.label:
            raise RefusedError(
                f"{said_of(new)} overlaps {said_of(other)}",
                "pieces of different classes one behind the other",
                "set its ends elsewhere, or move the other's",
            )
        if (other.start_s, other.end_s) == (new.start_s, new.end_s):
            raise RefusedError(f"{said_of(new)} exists already", "a piece once", "mark another")

    def _sharing(self, number: int, new: Row) -> Iterator[Row]:
        """Rows of the recording, and of others that share a file with it."""
        files = set(new.files.values())
        for position, recording in enumerate(self._recordings):
            if position == number or not files.isdisjoint(recording.rows[0].files.values()):
                yield from recording.rows

    def _free_id(self, model: Row, start_s: float) -> str:
        return self._unique(f"{stem(model)}@{start_s:.9g}", set())

    def _unique(self, wanted: str, freed: set[str]) -> str:
        taken = {row.id for recording in self._recordings for row in recording.rows} - freed
        count, name = 1, wanted
        while name in taken:
            count += 1
            name = f"{wanted}-{count}"
        return name

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No recorder adds rows meanwhile.

        Raises:
            RefusedError: ``kd-edge record`` does.
            DataError: Another program has been writing for seconds.
        """
        recorder = self.root / RECORDER
        with ExitStack() as stack:
            try:
                # Without its folder nothing was ever recorded into this one by kd-edge record.
                is_alone = not recorder.parent.is_dir() or stack.enter_context(held(recorder))
                stack.enter_context(written_alone(self.file))  # run --record-on may add a row
            except OSError as error:
                raise DataError(
                    f"{self.root} cannot be locked ({error.strerror})",
                    "a writable folder",
                    "correct its rights",
                ) from error
            if not is_alone:
                raise RefusedError(
                    "kd-edge record is recording into this folder; your change was not made",
                    "nobody else who writes it",
                    "end the recording, reload the labels, then do it again",
                )
            yield

    def _check_seen(self, revision: int) -> None:
        if revision != self.revision:
            raise ConflictError(
                "another window has changed the labels since this one has read them; your change was not made",
                "the newest labels",
                "load them (the button beside this), then do it again",
            )
        if self._on_disk() != self._digest:
            raise ChangedFileError(
                f"something else has written {self.file.name} since it was read; your change was not made",
                "the file as it was read",
                "reload it (the button next to this), then do it again",
            )

    def _on_disk(self) -> str:
        """Identifies the version of the manifest on disk; empty if there is none."""
        file = self.file
        if not is_file(file):
            return ""
        try:
            return _digest(file.name, read_bytes(file, MOST_BYTES))
        except OSError as error:
            raise DataError(f"{file} cannot be read ({error.strerror})", "a manifest", "correct its rights") from error

    def _save(self, number: int, rows: tuple[Row, ...]) -> None:
        """Write the manifest with new rows of a recording; nothing changes if that fails."""
        recordings = list(self._recordings)
        recordings[number] = replace(recordings[number], rows=rows)
        every, file = list(as_written(recordings)), self.file
        check_together([(file, every)])
        content = manifest_bytes(every, file)
        with replacing(file, DataError, option="DIR") as target:
            target.write(content)
        self._recordings, self._digest = recordings, _digest(file.name, content)
        self.revision += 1


def _digest(name: str, content: bytes) -> str:
    return name + hashlib.sha256(content).hexdigest()
