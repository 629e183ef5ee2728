"""The folder of a recording: its cameras, its manifest and unique clip numbers.

OUT/manifest.csv              one row per labelled piece, in the format of all own recordings
OUT/dataset.toml              facts that the files do not contain, such as bands; written once, then the user's
OUT/clips/00001_ir0.mkv       pixels; 00001_ir0.mkv.stamps next to it has the capture times
OUT/.record/cameras.json      the cameras, to check those of later sessions
OUT/.record/00001.jsonl       the journal of a clip, until its rows are in the manifest
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from kd_edge.data.readers.files.appending import (
    APPENDING,
    append_rows,
    check_rows,
    columns_of,
    complete,
    lines_of,
    table_text,
    write_lines,
    written_alone,
)
from kd_edge.data.readers.files.rows import COLUMNS, OFFSET, SESSION, csv_records, delimiter_of
from kd_edge.data.readers.files.settings import FILE, MODALITY, band_of, is_modality, read_settings
from kd_edge.data.readers.files.writing import RECORDER
from kd_edge.data.readers.sidecar import beside
from kd_edge.errors import ConfigError, DataError, printable, reason
from kd_edge.files import held, replacing
from kd_edge.reading import read_bytes, read_json
from kd_edge.record.journal import read_journal, rows_of
from kd_edge.record.plan import check_spelling
from kd_edge.record.repair import repaired

MANIFEST, CLIPS, OWN = "manifest.csv", "clips", RECORDER.partition("/")[0]
ENDING = ".mkv"
FORMAT = 1
_OWN_BYTES = 1_000_000
_NUMBER = re.compile(r"(\d{1,18})(?:_.*|-\d+)?")
_RESERVED = (*COLUMNS, SESSION, "skeleton", "pose")
_BY_BAND = {"nir": "ir", "lwir": "thermal", "depth": "depth", "rgb": "rgb"}


@dataclass(frozen=True, slots=True)
class CameraFacts:
    """Properties shared by all clips of a camera in a folder.

    Attributes:
        modality: Its column in the manifest.
        band: Spectral band.
        dtype: ``uint8`` or ``uint16``.
        channels: 1 or 3.
        width_px: Width of its frames.
        height_px: Height of its frames.
        uri: Its URI without secrets, for information only.
        focal: Focal length as a fraction of the frame's width; None if unknown.
    """

    modality: str
    band: str
    dtype: str
    channels: int
    width_px: int
    height_px: int
    uri: str = ""
    focal: float | None = None

    def __str__(self) -> str:
        return f"{self.modality} {self.width_px}x{self.height_px} {self.dtype}{' colour' if self.channels == 3 else ''}"

    def fits(self, other: CameraFacts) -> bool:
        """Whether clips of both cameras may share a column."""
        return str(self) == str(other) and self.band == other.band


class Folder:
    """A folder of recordings, new or from an earlier session, locked by this process until it is closed.

    Args:
        root: Path of the folder; created if it does not exist.

    Attributes:
        root: As given.
        repaired: Clips of an interrupted session that were added to the manifest.

    Raises:
        ConfigError: The folder contains something else, cannot be written, or another process records into it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repaired: tuple[str, ...] = ()
        self._own, self._manifest = root / OWN, root / MANIFEST
        self._held = ExitStack()
        self._trials: Counter[tuple[str, str]] = Counter()
        self._wanted: list[str] = []
        self._number = 0
        self.labels: list[str] = []
        check_free(root)
        try:
            (root / CLIPS).mkdir(parents=True, exist_ok=True)
            self._own.mkdir(exist_ok=True)
            is_ours = self._held.enter_context(held(root / RECORDER))
        except OSError as error:
            raise unwritable(root, error) from error
        if not is_ours:
            raise ConfigError(
                f"another process records into {root}", "one recorder per folder", "end the other one first"
            )

    def close(self) -> None:
        """Release the lock."""
        self._held.close()

    def fit(self, cameras: Sequence[CameraFacts], background: str | None = None) -> None:
        """Check that the cameras match the folder, and add the clips of an interrupted session to the manifest.

        Args:
            cameras: The cameras of this session.
            background: In a new folder, the class of everything between marked pieces; None for no such class.

        Raises:
            ConfigError: Other cameras were recorded before, or the folder cannot be written.
            DataError: Files in the folder are damaged.
        """
        known = self._cameras()
        try:
            if known:
                self._check_same(known, cameras)
            else:
                self._describe(cameras, background)
            self._check_manifest([camera.modality for camera in cameras])
            self._number = self._last_number()
            self.repaired = tuple(self._repair())
        except OSError as error:
            raise unwritable(self.root, error) from error
        for row in self._rows():
            label, subject, trial = (row.get(key) or "" for key in ("label", "subject", "trial"))
            if label and label not in self.labels:
                self.labels.append(label)
            self.note_trial(label, subject, trial)

    def check_labels(self, labels: Sequence[str]) -> None:
        """Check that training will accept the labels.

        Raises:
            ConfigError: A label differs from another one only in case or spaces, is not in ``dataset.toml``, or that
                file is invalid.
        """
        settings = read_settings(self.root)
        background = () if settings.background is None else (settings.background,)
        check_spelling(labels, [*(settings.labels or ()), *background, *self.labels])
        known = (*settings.labels, *background) if settings.labels is not None else labels
        if unknown := [label for label in labels if label not in known]:
            raise ConfigError(
                f"label '{printable(unknown[0])}', which is not among the labels in {self.root / FILE}",
                f"one of {printable(', '.join(known))}",
                "add it there, or correct --label",
            )

    def new_number(self) -> int:
        """Return a number that no clip, row or journal of the folder has."""
        self._number += 1
        return self._number

    def _last_number(self) -> int:
        """The highest number in use; read once, because a folder may contain thousands of files."""
        names = [path.name for path in (*(self.root / CLIPS).iterdir(), *self._own.glob("*.jsonl"))]
        names += [row.get("id") or "" for row in self._rows()]
        found = (_NUMBER.fullmatch(name.removesuffix(".jsonl")) for name in names)
        return max((int(match[1]) for match in found if match), default=0)

    def next_trial(self, label: str, subject: str) -> int:
        """Return the number of a person's next repetition of a label."""
        return self._trials[label, subject] + 1

    def note_trial(self, label: str, subject: str, trial: str) -> None:
        """Count a repetition that is in the manifest."""
        if trial.isdecimal() and len(trial) < 10:
            self._trials[label, subject] = max(self._trials[label, subject], int(trial))

    def forget_trial(self, label: str, subject: str, trial: str) -> None:
        """Free the number of the newest repetition, which was discarded."""
        if trial == str(self._trials[label, subject]):
            self._trials[label, subject] -= 1

    def clip_path(self, number: int, modality: str) -> Path:
        """Return the path of a camera's file of a clip."""
        return self.root / CLIPS / f"{number:05d}_{modality}{ENDING}"

    def journal(self, number: int) -> Path:
        """Return the path of a clip's journal."""
        return self._own / f"{number:05d}.jsonl"

    def add(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Append rows to the manifest, all or none.

        Raises:
            OSError: The rows cannot be written.
            KdEdgeError: The manifest has been changed by another program and is no longer valid.
        """
        with written_alone(self._manifest):
            append_rows(self._manifest, rows, self._wanted)
        for row in rows:
            self.note_trial(row.get("label", ""), row.get("subject", ""), row.get("trial", ""))

    def remove(self, rows: Sequence[Mapping[str, str]], files: Mapping[str, str]) -> None:
        """Remove the rows and files of the newest clip.

        Args:
            rows: The rows as they were added.
            files: File of each camera, by column.

        Raises:
            OSError: The files cannot be removed.
            KdEdgeError: The manifest cannot be written.
        """
        with written_alone(self._manifest):
            complete(self._manifest, self._wanted)
            check_rows(self._manifest)
            content, gone = table_text(self._manifest), {row["id"] for row in rows}
            place = columns_of(content).index("id")
            kept = [line for line in lines_of(content) if len(line) <= place or line[place].strip() not in gone]
            write_lines(self._manifest, kept, delimiter_of(content))
        self.drop(files, set())
        for row in rows:
            self.forget_trial(row["label"], row["subject"], row["trial"])

    def _cameras(self) -> list[CameraFacts]:
        """The cameras of earlier sessions; none in a new folder."""
        file = self._own / "cameras.json"
        try:
            raw = read_json(read_bytes(file, _OWN_BYTES).decode("utf-8"))
            if raw.get("format") != FORMAT:
                raise ValueError(f"format {raw.get('format')}, not {FORMAT}")
            return [CameraFacts(**camera) for camera in raw["cameras"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{file} cannot be read: {reason(error)}",
                "the file that kd-edge record wrote",
                "record into another --out",
            ) from error

    def _check_same(self, known: Sequence[CameraFacts], cameras: Sequence[CameraFacts]) -> None:
        before, now = ({camera.modality: camera for camera in each} for each in (known, cameras))
        if before.keys() == now.keys() and all(before[name].fits(now[name]) for name in now):
            return
        raise ConfigError(
            f"{self.root} contains clips of {_listed(known)}, these cameras are {_listed(cameras)}",
            "the same cameras, sizes and types in one folder",
            "record into another --out, or set up the cameras as before (NAME=URI names one)",
        )

    def _describe(self, cameras: Sequence[CameraFacts], background: str | None) -> None:
        """Write facts that the files do not contain; an existing ``dataset.toml`` is the user's and is kept."""
        if not os.path.lexists(self.root / FILE):
            with replacing(self.root / FILE, ConfigError, option="--out") as file:
                file.write(_settings(cameras, background).encode("utf-8"))
        described = {"format": FORMAT, "cameras": [asdict(camera) for camera in cameras]}
        with replacing(self._own / "cameras.json", ConfigError, option="--out") as file:
            file.write(json.dumps(described, indent=2).encode("ascii"))

    def _check_manifest(self, modalities: Sequence[str]) -> None:
        """Create the manifest if there is none; check all of an existing one, which may be from another program."""
        if os.path.lexists(self.root / "manifest.jsonl"):
            raise ConfigError(
                f"{self.root} has a manifest.jsonl", "a manifest.csv, to which rows are added", "convert it"
            )
        self._wanted = [*COLUMNS, *modalities, *(name + OFFSET for name in modalities), SESSION]
        if not os.path.lexists(self._manifest) or not self._manifest.stat().st_size:
            write_lines(self._manifest, [self._wanted])
        try:
            os.close(os.open(self._manifest, APPENDING))  # fail now, not at the end of a clip
        except OSError as error:
            raise ConfigError(
                f"{self._manifest} cannot be appended to ({error.strerror})",
                "a writable regular file",
                "correct it",
            ) from error
        with written_alone(self._manifest):
            complete(self._manifest, self._wanted)
            check_rows(self._manifest)

    def _rows(self) -> Iterator[dict[str, str]]:
        return (record for _, record in csv_records(self._manifest, table_text(self._manifest), strict=True))

    def _repair(self) -> Iterator[str]:
        """Add clips that still have a journal: their process ended before the rows were written."""
        named = {cell for row in self._rows() for cell in row.values()}
        for path in sorted(self._own.glob("*.jsonl")):
            journal = read_journal(path)
            if journal is not None:
                stamps = {name: self._stamps(file) for name, file in journal.files.items()}
                if named.isdisjoint(journal.files.values()):  # otherwise the rows were written, or the user wrote some
                    rows = rows_of(journal, stamps)
                    self.drop(journal.files, {name for row in rows for name in stamps if row.get(name)})
                    if rows:
                        self.add(rows)
                        yield journal.id
            path.unlink()

    def _stamps(self, file: str) -> list[int]:
        path = self.root / file
        return repaired(path) if path.is_file() else []

    def drop(self, files: Mapping[str, str], kept: Set[str]) -> None:
        """Remove the files of a clip that are in no row."""
        for name, file in files.items():
            if name not in kept:
                for path in (self.root / file, beside(self.root / file)):
                    with suppress(FileNotFoundError):
                        path.unlink()


def check_free(root: Path) -> None:
    """Check that a folder can take recordings, before cameras are opened.

    Raises:
        ConfigError: It contains something else.
    """
    try:
        is_new = not os.path.lexists(root) or (root.is_dir() and not any(root.iterdir()))
        is_ours = root.is_dir() and (root / OWN).is_dir()
    except OSError as error:
        raise unwritable(root, error) from error
    if not is_new and not is_ours:
        what = "contains other files" if root.is_dir() else "is not a folder"
        raise ConfigError(
            f"{root} {what}", "a new or empty folder, or one created by kd-edge record", "choose another --out"
        )


def column(name: str | None, band: str) -> str:
    """Return a camera's column in the manifest: its name, or its band if it has none.

    Raises:
        ConfigError: The name cannot be a column.
    """
    found = _BY_BAND[band] if name is None else name
    if not re.fullmatch(MODALITY, found) or found in _RESERVED or found.endswith(OFFSET):
        raise ConfigError(
            f"a camera called '{printable(found)}'",
            "a letter, then letters, digits, - and _; not another column of manifest.csv",
            "--camera NAME=CAMERA names it",
        )
    return found


def band_seen(name: str | None, band: str | None, dtype: str, channels: int) -> str:
    """Return a camera's band: as configured, otherwise by its name, otherwise by its pixel format."""
    named = band or (band_of(name) if name is not None and is_modality(name) else None)
    if named is not None and (named == "rgb") == (channels == 3):
        return named
    if channels == 3:
        return "rgb"
    return "nir" if dtype == "uint8" else "lwir"


def _settings(cameras: Sequence[CameraFacts], background: str | None) -> str:
    lines = ["# Facts that the files do not contain; yours to change. docs/own_recordings.md lists all settings."]
    if background is not None:
        lines += [f'background = "{background}"  # class of everything between the pieces marked by key']
    for camera in cameras:
        lines += ["", f"[modality.{camera.modality}]", f'band = "{camera.band}"', f'dtype = "{camera.dtype}"']
        if camera.focal is not None:
            lines += [f"focal = {camera.focal:.4g}  # focal length / frame width"]
    return "\n".join(lines) + "\n"


def _listed(cameras: Sequence[CameraFacts]) -> str:
    return ", ".join(f"{camera} ({camera.band})" for camera in cameras)


def unwritable(root: Path, error: OSError) -> ConfigError:
    """The error for a folder that the system refuses."""
    return ConfigError(
        f"{root} cannot be recorded into ({error.strerror or reason(error)})",
        "a writable folder with free space",
        "choose another --out, or free space",
    )
