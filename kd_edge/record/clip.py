"""A clip being recorded: one file per camera, and the journal from which its manifest rows are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from kd_edge.errors import KdEdgeError
from kd_edge.record.folder import Folder
from kd_edge.record.journal import Journal, JournalFile, Piece, rows_of
from kd_edge.record.track import Taking, Track
from kd_edge.record.writer import FrameWriter

QUEUE_BYTES = 128_000_000
"""Memory for frames waiting to be written, all cameras together: seven seconds of two grey 640x480 cameras at 30 Hz."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished clip.

    Attributes:
        rows: Rows added to the manifest; none if there were too few frames.
        frames: Number of frames in each camera's file.
        seconds: Time from the first frame to the last.
        size_bytes: Total size of its files.
        files: File of each camera, by column.
        fault: Why frames of a camera could not be written, as one line; empty if they could.
    """

    rows: tuple[Mapping[str, str], ...]
    files: Mapping[str, str]
    frames: Mapping[str, int]
    seconds: float
    size_bytes: int
    fault: str = ""


class Clip:
    """Records immediately; ``finish`` ends it.

    Args:
        folder: The folder to record into.
        tracks: The cameras, by column.
        cells: Cells of its rows other than files and times.
        begin_ns: Time of its begin (inclusive), monotonic ns.
        end_ns: Time of its end (exclusive); None until ``finish``.
        after: The clip that ends where this one begins, shortly after now; no frame is lost between them.

    Raises:
        ConfigError: Its files cannot be created.
        OSError: Its journal cannot be created.
    """

    def __init__(
        self,
        folder: Folder,
        tracks: Mapping[str, Track],
        cells: Mapping[str, str],
        begin_ns: int,
        end_ns: int | None = None,
        after: Clip | None = None,
    ) -> None:
        self.begin_ns, self.end_ns = begin_ns, end_ns
        self._is_written = self._is_discarded = False
        self._folder, self._tracks = folder, tracks
        number = folder.new_number()
        paths = {name: folder.clip_path(number, name) for name in tracks}
        files = {name: path.relative_to(folder.root).as_posix() for name, path in paths.items()}
        self._journal = JournalFile(folder.journal(number), Journal(f"{number:05d}", files, dict(cells)))
        self._takings: dict[str, Taking] = {}
        try:
            for name, track in tracks.items():
                writer = FrameWriter(paths[name], track.fps or 30.0, QUEUE_BYTES // len(tracks))
                before = None if after is None else after._takings[name]
                self._takings[name] = track.take(writer, begin_ns, end_ns, before)
            if after is not None:
                after.end_ns = begin_ns
        except BaseException:
            for name, taking in self._takings.items():
                tracks[name].leave(taking)
                taking.writer.close()
            self._journal.close()
            folder.drop(files, set())
            self._journal.path.unlink()
            raise

    @property
    def label(self) -> str:
        """The label being recorded: that of the running piece, otherwise that of the clip."""
        return self._journal.journal.cells["label"] if self.running is None else self.running.label

    @property
    def running(self) -> Piece | None:
        """The piece that was begun by key and not ended yet."""
        pieces = self._journal.journal.pieces
        return pieces[-1] if pieces and pieces[-1].end_ns is None else None

    def mark(self, label: str, trial: str, now_ns: int) -> None:
        """Begin a piece; a running one ends."""
        self.unmark(now_ns)
        self._journal.begin(Piece(label, trial, now_ns))

    def unmark(self, now_ns: int) -> None:
        """End the running piece, if any."""
        if self.running is not None:
            self._journal.end(now_ns)

    def forget(self) -> Piece | None:
        """Discard and return the running or the last piece; None if there is none."""
        return self._journal.discard() if self._journal.journal.pieces else None

    @property
    def is_over(self) -> bool:
        """Whether every camera has delivered a frame from after its end."""
        return all(taking.is_over for taking in self._takings.values())

    @property
    def broken(self) -> str:
        """Why it cannot continue (a camera's stream was interrupted, or the disk fails); empty if it can."""
        for name, taking in self._takings.items():
            if taking.broken:
                return f"{name}: {taking.broken}"
            if taking.writer.fault is not None:
                return f"{name} cannot be written: {taking.writer.fault}"
        return ""

    @property
    def disk_fault(self) -> str:
        """Why frames cannot be written; empty if they can."""
        return next((t.writer.fault for t in self._takings.values() if t.writer.fault is not None), "")

    @property
    def size_bytes(self) -> int:
        """Total size of its files so far."""
        return sum(taking.writer.written_bytes for taking in self._takings.values())

    def discard(self) -> None:
        """Mark the clip as discarded; ``finish`` then removes its files."""
        self._is_discarded = True

    def finish(self) -> Finished:
        """End the clip and write queued frames and rows, in bounded time; can be called again after an interrupt.

        If the rows cannot be written, the journal stays and the next session writes them.
        """
        for name, taking in self._takings.items():
            self._tracks[name].leave(taking)
        stamps = {name: taking.writer.close() for name, taking in self._takings.items()}
        self._journal.close()
        is_stuck = any(taking.writer.is_stuck for taking in self._takings.values())
        rows = [] if is_stuck or self._is_discarded else rows_of(self._journal.journal, stamps)
        fault = self.disk_fault
        kept = {name for row in rows for name in stamps if row.get(name)}
        try:
            if not is_stuck:
                self._write(rows, kept)
        except (OSError, KdEdgeError) as error:
            why = error.strerror if isinstance(error, OSError) else error.found
            rows, fault = [], fault or f"its rows cannot be written ({why}); the next session will write them"
        ends = [stamps[name] for name in kept]
        seconds = (max(s[-1] for s in ends) - min(s[0] for s in ends)) / 1e9 if ends else 0.0
        counts = {name: len(s) for name, s in stamps.items()}
        return Finished(tuple(rows), self._journal.journal.files, counts, seconds, self.size_bytes, fault)

    def _write(self, rows: Sequence[Mapping[str, str]], kept: Set[str]) -> None:
        """Write the rows; remove the journal and files that are in no row."""
        if rows and not self._is_written:
            self._folder.add(rows)
            self._is_written = True
        self._folder.drop(self._journal.journal.files, kept)
        self._journal.path.unlink(missing_ok=True)
