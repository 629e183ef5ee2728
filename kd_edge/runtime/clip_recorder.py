"""Records short clips around uncertain labels, in a folder to be labelled and trained on."""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, get_args

from kd_edge.artifact import Band, Manifest
from kd_edge.data.readers.files.appending import append_rows, columns_of, table_text, written_alone
from kd_edge.errors import ConfigError, DataError, KdEdgeError, printable, reason
from kd_edge.files import expanded, new_file
from kd_edge.packages import import_extra
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.cameras.lossless import ENDING, LosslessWriter
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.scheduling import at_ease
from kd_edge.types import Cause, Frame, LabelState, Prediction, Reason

log = logging.getLogger("kd_edge.runtime")

RecordOn = Literal["unknown", "low-confidence", "degraded"]
"""Which labels are recorded: any ``unknown`` one, those unknown for low confidence alone, or any ``degraded`` one."""
MAX_MB = 2000.0
BEFORE, AFTER = 2, 1
"""Length of a clip before and after its label, in windows of the model."""
CLIP_BYTES = 128_000_000
"""Largest memory of a clip's frames, or of those kept before one."""
WAITING = 2
"""Largest number of clips waiting to be written."""
ROW_SECONDS = 5.0
"""How long to wait for another writer of the manifest before a row is postponed."""
AGAIN_SECONDS = 10.0
"""Retry interval of postponed rows; they are also retried with each clip and at the end of the stream."""
MOST_ROWS = 50
"""Largest number of postponed rows."""
STUCK_SECONDS = 30.0
"""How long closing waits for a clip to be written."""
LONGEST_GAP_NS = 1_000_000_000
"""Frames further apart belong to different clips."""
NICE = 10
MANIFEST = "manifest.csv"
KEYS = ("id", "label", "subject", "view", "trial", "split", "start_s", "end_s")
"""Columns of a manifest of ``kind = "files"``; the column of the model's modality follows."""
NOTES = ("suggestion", "confidence", "state", "reason", "model", "recorded")
"""Further columns, for the person who fills in the labels."""


class _Clip(NamedTuple):
    """Frames around a recorded label."""

    source: str
    frames: list[Frame]
    moment: Prediction


@dataclass(slots=True)
class _Watched:
    """State of one camera."""

    frames: deque[Frame] = field(default_factory=deque)
    size: int = 0
    moment: Prediction | None = None
    is_armed: bool = True
    calm_ns: int | None = None  # since when no label was worth recording

    def forget(self) -> None:
        self.frames.clear()
        self.size = 0
        self.moment = None


@dataclass(slots=True)
class ClipCounters:
    """Counters of clips.

    Attributes:
        clips: Clips written.
        lost: Clips not written: the disk was too slow or full, the folder reached its size limit, or the manifest
            accepted no row before the end of the stream.
    """

    clips: int = 0
    lost: int = 0


class ClipRecorder:
    """Writes a lossless clip around each label to be recorded, and a row for it; never delays a label.

    A clip spans ``BEFORE`` windows before the label and ``AFTER`` after it, and ends at a cut. A continuous run of such
    labels gives one clip: the next one requires a window's time without any.

    Args:
        on: Which labels are recorded.
        folder: Folder of the clips and ``manifest.csv``; created if missing.
        model: Manifest of the model.
        max_mb: Largest total size of the clips in the folder, in units of 10^6 bytes.
        lossless: Wait for the disk instead of dropping clips: for recordings as cameras.
        clock: Gives the time of a clip.

    Attributes:
        counters: Counters of clips.
        fault: What ended the recording of clips, in one line; None while it works.
    """

    def __init__(
        self,
        on: RecordOn,
        folder: Path | str,
        model: Manifest,
        *,
        max_mb: float = MAX_MB,
        lossless: bool = False,
        clock: Clock = MONOTONIC,
    ) -> None:
        self.counters = ClipCounters()
        self.fault: str | None = None
        self._on, self._folder, self._model, self._clock = on, expanded(folder), model, clock
        self._room_bytes = max_mb * 1e6
        self._is_full = False
        self._lossless = lossless
        self._window_ns = round(model.clip_seconds * 1e9)
        self._watched: dict[str, _Watched] = {}
        self._rows: list[dict[str, str]] = []  # of written clips, until they are in the manifest
        self._is_postponed = False
        self._queue: queue.Queue[_Clip | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="kd-edge clips", daemon=True)

    def open(self) -> None:
        """Create the folder and its manifest, or check existing ones; ``add_camera`` and ``start`` follow.

        Raises:
            ConfigError: The folder is not writable, or its manifest has other columns.
            MissingExtraError: PyAV is not installed.
        """
        import_extra("av", "replay")
        manifest = self._folder / MANIFEST
        wanted = [*KEYS, self._model.modality, *NOTES]
        try:
            self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._room_bytes -= sum(p.stat().st_size for p in self._folder.glob(f"*{ENDING}"))
            with suppress(FileExistsError), new_file(manifest) as file:
                file.write((",".join(wanted) + "\n").encode("ascii"))
            columns = columns_of(table_text(manifest))
        except OSError as error:
            raise ConfigError(
                f"clips cannot be kept in {self._folder} ({error.strerror or reason(error)})",
                "a writable folder",
                "choose another --record-dir",
            ) from error
        if missing := [name for name in (*KEYS, self._model.modality) if name not in columns]:
            raise ConfigError(
                f"{manifest} has no column {', '.join(missing)}",
                f"{','.join(wanted)}",
                "add the columns, or choose another --record-dir",
            )

    def add_camera(self, name: str, band: Band | None, config: CameraConfig | None, focal: float | None = None) -> None:
        """Register a camera."""
        self._watched[name] = _Watched()

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def cut(self, source: str, cause: Cause) -> None:
        """End a clip: the frames before and after do not belong together."""
        self._end(source)

    def frame(self, source: str, frame: Frame) -> None:
        """Add a pushed frame; its image must not change afterwards."""
        watched = self._watched[source]
        if watched.frames and not _goes_on(watched.frames[-1], frame):
            self._end(source)
        watched.frames.append(frame)
        watched.size += frame.image.nbytes
        if watched.moment is None:
            oldest_ns = frame.captured_ns - BEFORE * self._window_ns
            while watched.frames[0].captured_ns < oldest_ns or (watched.size > CLIP_BYTES and len(watched.frames) > 1):
                watched.size -= watched.frames.popleft().image.nbytes
        elif frame.captured_ns >= watched.moment.captured_ns + AFTER * self._window_ns or watched.size > 2 * CLIP_BYTES:
            self._end(source)

    def label(self, prediction: Prediction) -> None:
        """Begin a clip if this label is to be recorded."""
        watched = self._watched[prediction.source]
        if not _is_wanted(self._on, prediction):
            watched.calm_ns = prediction.captured_ns if watched.calm_ns is None else watched.calm_ns
            is_calm = prediction.captured_ns - watched.calm_ns >= self._window_ns
            watched.is_armed = watched.is_armed or (watched.moment is None and is_calm)
            return
        watched.calm_ns = None
        if watched.is_armed and watched.frames:
            watched.is_armed, watched.moment = False, prediction

    def _end(self, source: str) -> None:
        """Hand over a finished clip, if any, and reset."""
        watched = self._watched[source]
        if watched.moment is not None:
            self._put(_Clip(source, list(watched.frames), watched.moment))
        watched.forget()

    def _put(self, clip: _Clip) -> None:
        is_queued = False
        if self.fault is None and not self._is_full:
            with suppress(queue.Full):
                self._queue.put(clip, block=self._lossless, timeout=STUCK_SECONDS)
                is_queued = True
        if not is_queued:
            self.counters.lost += 1
            if self.counters.lost == 1 and self.fault is None and not self._is_full:
                log.warning("clips in %s: the disk is too slow; some are left out", printable(str(self._folder)))

    def close(self, hashes: Mapping[str, str] | None = None) -> None:
        """Write unfinished clips; takes bounded time."""
        if self._thread.ident is None:
            return
        for source in self._watched:
            self._end(source)
        with suppress(queue.Full):
            self._queue.put(None, timeout=STUCK_SECONDS)
        self._thread.join(STUCK_SECONDS)
        if self._thread.is_alive():
            log.warning("a clip in %s is left behind", printable(str(self._folder)))

    def _run(self) -> None:
        at_ease()
        with suppress(OSError, AttributeError):  # of this thread, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while (clip := self._next()) is not None:
            if self.fault is not None or self._is_full:
                self.counters.lost += 1
                continue
            try:
                self._write(clip)
            except BaseException as error:  # labels go on whatever happens to a clip
                self._broke(error)
        self._add_last_rows()

    def _next(self) -> _Clip | None:
        """Wait for the next clip, retrying postponed rows meanwhile."""
        while self._rows and self.fault is None:
            with suppress(queue.Empty):
                return self._queue.get(timeout=AGAIN_SECONDS)
            try:
                self._add_rows()
            except BaseException as error:  # as for a clip
                self._broke(error, lost=0)
        return self._queue.get()

    def _add_last_rows(self) -> None:
        """Retry a last time; clips without a row are kept and logged by name."""
        if not self._rows:
            return
        why: BaseException | None = None
        try:
            why = self._add_rows()
        except BaseException as error:  # as for a clip
            why = error
        if why is not None:
            log.warning("%s", printable(f"clips without a row in {self._folder / MANIFEST}: {self._names()}"))
            self._broke(why, lost=len(self._rows))

    def _names(self) -> str:
        return ", ".join(row[self._model.modality] for row in self._rows)

    def _broke(self, error: BaseException, lost: int = 1) -> None:
        self.counters.lost += lost
        text = error.found if isinstance(error, KdEdgeError) else getattr(error, "strerror", None) or reason(error)
        self.fault = printable(str(text))
        log.warning("clips in %s are no longer kept: %s", printable(str(self._folder)), self.fault)

    def _write(self, clip: _Clip) -> None:
        """Write a clip, then its row; incomplete clips, and clips whose row cannot be written, are removed."""
        path, file = self._new_clip(clip)
        try:
            with file:
                self._encode(clip, file)
            self._room_bytes -= path.stat().st_size
            self._rows.append(self._row(path, clip))
            self._add_rows()
        except BaseException as error:
            path.unlink(missing_ok=True)
            self._rows = [row for row in self._rows if row["id"] != path.stem]
            if not isinstance(error, _NoRoomError):
                raise
            self._is_full = True
            self.counters.lost += 1
            log.warning("%s has reached its size limit (--record-max-mb)", printable(str(self._folder)))

    def _encode(self, clip: _Clip, file: BinaryIO) -> None:
        first, last = clip.frames[0], clip.frames[-1]
        seconds = (last.captured_ns - first.captured_ns) / 1e9
        writer = LosslessWriter(file, first.image, (len(clip.frames) - 1) / seconds if seconds > 0 else 30.0)
        try:
            for frame in clip.frames:
                writer.add(frame.image, frame.captured_ns - first.captured_ns)
                self._check_room(file)
            writer.finish()
            self._check_room(file)
        except BaseException:
            with suppress(Exception):  # writing failed, so closing may fail, too
                writer.close()
            raise

    def _check_room(self, file: BinaryIO) -> None:
        if file.tell() > self._room_bytes:
            raise _NoRoomError

    def _new_clip(self, clip: _Clip) -> tuple[Path, BinaryIO]:
        """Create a new file, named by camera and time of day."""
        camera = re.sub(r"[^A-Za-z0-9]+", "-", clip.source).strip("-")[:64] or "camera"
        taken = f"{camera}_{self._taken(clip):%Y%m%dT%H%M%S}"
        for number in range(1000):
            path = self._folder / f"{taken}_{number}{ENDING}"
            with suppress(FileExistsError):
                return path, new_file(path)
        raise FileExistsError(17, f"a thousand clips named {taken}")

    def _taken(self, clip: _Clip) -> datetime:
        """Time of day of a clip's label."""
        age_ns = self._clock.now_ns() - clip.moment.captured_ns if clip.moment.emitted_ns is not None else 0
        return datetime.fromtimestamp((self._clock.wall_ns() - age_ns) / 1e9, timezone.utc)

    def _row(self, path: Path, clip: _Clip) -> dict[str, str]:
        moment, first_ns = clip.moment, clip.frames[0].captured_ns
        end_s = (moment.captured_ns - first_ns) / 1e9
        return {
            "id": path.stem,
            "view": clip.source,
            "start_s": f"{max(0.0, end_s - self._model.clip_seconds):.3f}",
            "end_s": f"{end_s:.3f}",
            self._model.modality: path.name,
            "suggestion": self._model.labels[moment.index] if moment.index >= 0 else "",
            "confidence": f"{moment.confidence:.3f}",
            "state": moment.state.value,
            "reason": moment.reason.value,
            "model": self._model.name,
            "recorded": f"{self._taken(clip):%Y-%m-%dT%H:%M:%SZ}",
        }

    def _add_rows(self) -> Exception | None:
        """Write rows of finished clips, or postpone them.

        Its owner may be at the manifest: hold it, have saved half of it, or be about to put another one in its place.

        Returns:
            Why they were postponed; None if they were written.

        Raises:
            OSError: The disk does not take them.
            DataError: There are too many of them.
        """
        manifest = self._folder / MANIFEST
        try:
            with written_alone(manifest, ROW_SECONDS):
                append_rows(manifest, self._rows, list(dict.fromkeys(n for row in self._rows for n in row if row[n])))
        except (DataError, FileNotFoundError) as error:
            if len(self._rows) > MOST_ROWS:
                raise
            self._postpone(error)
            return error
        self.counters.clips += len(self._rows)
        self._rows, self._is_postponed = [], False
        return None

    def _postpone(self, error: DataError | FileNotFoundError) -> None:
        if not self._is_postponed:
            self._is_postponed = True
            why = error.found if isinstance(error, DataError) else error.strerror
            log.warning("%s", printable(f"rows of clips in {self._folder} wait ({why}) and are tried again"))


class _NoRoomError(Exception):
    """The folder has reached its size limit."""


def _goes_on(before: Frame, after: Frame) -> bool:
    """Whether two frames belong to one clip."""
    is_near = 0 < after.captured_ns - before.captured_ns <= LONGEST_GAP_NS
    return is_near and before.image.shape == after.image.shape and before.image.dtype == after.image.dtype


def _is_wanted(on: RecordOn, prediction: Prediction) -> bool:
    if on == "degraded":
        return prediction.state is LabelState.DEGRADED
    if on == "low-confidence":
        return prediction.reason is Reason.LOW_CONFIDENCE
    return prediction.state is LabelState.UNKNOWN


def record_on(text: str) -> RecordOn:
    """Parse the value of ``--record-on``.

    Raises:
        ConfigError: An unknown value.
    """
    for known in get_args(RecordOn):
        if text == known:
            found: RecordOn = known
            return found
    raise ConfigError(f"--record-on {text}", f"one of {', '.join(get_args(RecordOn))}", "correct it")
