"""The journal of a clip being recorded: a file of lines from which its manifest rows can be made at any time."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_edge.data.readers.files.rows import OFFSET
from kd_edge.reading import read_bytes

LEAST_FRAMES = 2
"""Frames that a piece needs at least."""
_PAST_THE_LAST_NS = 1_000_000  # so that the last frame is inside, however its stamp is rounded
_MOST_BYTES = 64_000_000
_FILE = re.compile(r"clips/\d+_[\w-]+\.mkv", re.ASCII)
"""Name of a clip's file; other names in a damaged journal are ignored, so that nothing else is changed or removed."""


@dataclass(slots=True)
class Piece:
    """A labelled piece of a recording.

    Attributes:
        label: Its class.
        trial: Number of the repetition.
        begin_ns: Monotonic time.
        end_ns: Monotonic time; None ends with the recording.
    """

    label: str
    trial: str
    begin_ns: int
    end_ns: int | None = None


@dataclass(slots=True)
class Journal:
    """One clip: its files, the cells of its rows, and the pieces marked by key so far.

    Attributes:
        id: Id of its row; with pieces ``id-1``, ``id-2`` and so on.
        files: File of each camera, by column, relative to the folder.
        cells: Cells of its rows: label, subject, view, trial, session.
        pieces: Marked pieces in order; none without keys.
    """

    id: str
    files: dict[str, str]
    cells: dict[str, str]
    pieces: list[Piece] = field(default_factory=list)


class JournalFile:
    """Writes a journal line by line without buffering, so that a killed process loses nothing.

    Args:
        path: A new file.
        journal: The facts known at the beginning.

    Attributes:
        journal: As given, with the pieces marked since.

    Raises:
        OSError: The file cannot be created.
    """

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path, self.journal = path, journal
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            self._add({"id": journal.id, "files": journal.files, "cells": journal.cells})
        except BaseException:
            self.close()
            path.unlink()
            raise

    def begin(self, piece: Piece) -> None:
        """Record the begin of a piece."""
        self.journal.pieces.append(piece)
        self._add({"label": piece.label, "trial": piece.trial, "begin_ns": piece.begin_ns})

    def end(self, end_ns: int) -> None:
        """Record the end of the last piece."""
        self.journal.pieces[-1].end_ns = end_ns
        self._add({"end_ns": end_ns})

    def discard(self) -> Piece:
        """Remove and return the last piece, whether it has ended or not."""
        piece = self.journal.pieces.pop()
        self._add({"discarded": piece.label})
        return piece

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _add(self, values: Mapping[str, Any]) -> None:
        os.write(self._handle, json.dumps(values).encode("ascii") + b"\n")


def read_journal(path: Path) -> Journal | None:
    """Read a journal up to its last complete line; None if not even the first one is complete.

    Raises:
        OSError: The file cannot be read.
    """
    lines = read_bytes(path, _MOST_BYTES).split(b"\n")[:-1]
    journal: Journal | None = None
    try:
        for line in lines:
            values = json.loads(line)
            if journal is None:
                files = {str(name): str(file) for name, file in values["files"].items()}
                if not all(_FILE.fullmatch(file) for file in files.values()):
                    return None
                cells = {str(name): str(cell) for name, cell in values["cells"].items()}
                journal = Journal(str(values["id"]), files, cells)
            elif "begin_ns" in values:
                journal.pieces.append(Piece(str(values["label"]), str(values["trial"]), int(values["begin_ns"])))
            elif "discarded" in values:
                journal.pieces.pop()
            elif journal.pieces:
                journal.pieces[-1].end_ns = int(values["end_ns"])
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return journal  # a truncated or damaged line: use those before it
    return journal


def rows_of(journal: Journal, stamps_ns: Mapping[str, Sequence[int]]) -> list[dict[str, str]]:
    """Make the manifest rows of a clip: one, or one per marked piece.

    A camera's file is included if it has ``LEAST_FRAMES`` frames; its offset from the first camera is exact to the
    nanosecond. A piece ends no later than the camera that ended first.

    Args:
        journal: The clip.
        stamps_ns: (T,) capture times of each camera's frames, monotonic ns, increasing.
    """
    there = {name: stamps for name, stamps in stamps_ns.items() if len(stamps) >= LEAST_FRAMES}
    if not there:
        return []
    zero_ns = min(stamps[0] for stamps in there.values())
    files = {name: journal.files[name] for name in there}
    offsets = {name + OFFSET: repr((s[0] - zero_ns) / 1e9) for name, s in there.items() if s[0] > zero_ns}
    common = journal.cells | files | offsets
    if not journal.pieces:
        return [{"id": journal.id, **common}]
    rows: list[dict[str, str]] = []
    common_end_ns = min(stamps[-1] for stamps in there.values()) + _PAST_THE_LAST_NS
    for piece in journal.pieces:
        end_ns = common_end_ns if piece.end_ns is None else min(piece.end_ns, common_end_ns)
        if all(_count(stamps, piece.begin_ns, end_ns) >= LEAST_FRAMES for stamps in there.values()):
            begin_s, end_s = (max(0, ns - zero_ns) / 1e9 for ns in (piece.begin_ns, end_ns))
            facts = {"label": piece.label, "trial": piece.trial, "start_s": f"{begin_s:.3f}", "end_s": f"{end_s:.3f}"}
            rows.append({**common, "id": f"{journal.id}-{len(rows) + 1}", **facts})
    return rows or [{"id": journal.id, **common}]


def _count(stamps_ns: Sequence[int], begin_ns: int, end_ns: int) -> int:
    """Number of a camera's frames in a piece."""
    return bisect_left(stamps_ns, end_ns) - bisect_left(stamps_ns, begin_ns)
