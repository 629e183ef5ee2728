"""Keep what the model did not know: short clips around such moments, in a folder to label and to train on."""

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
"""What is worth a clip: any ``unknown`` label, one for its confidence alone, or any ``degraded`` one."""
MAX_MB = 2000.0
BEFORE, AFTER = 2, 1
"""A clip has so many windows of the model before the moment, and after it."""
CLIP_BYTES = 128_000_000
"""The frames of a clip, or of the time before one, take at most so much memory."""
WAITING = 2
"""So many clips may wait to be written."""
ROW_SECONDS = 5.0
"""How long a clip's row waits for whoever writes the manifest, before it is put off."""
AGAIN_SECONDS = 10.0
"""After so long rows that were put off are tried again; with each clip, too, and at the end of the stream."""
MOST_ROWS = 50
"""So many rows may be put off."""
STUCK_SECONDS = 30.0
"""How long the end of a stream waits for a clip to be written."""
LONGEST_GAP_NS = 1_000_000_000
"""Frames further apart are no one clip."""
NICE = 10
MANIFEST = "manifest.csv"
KEYS = ("id", "label", "subject", "view", "trial", "split", "start_s", "end_s")
"""Of ``kind = "files"``; the column of the model's modality follows."""
NOTES = ("suggestion", "confidence", "state", "reason", "model", "recorded")
"""For whoever fills in the labels."""


class _Clip(NamedTuple):
    """Frames around a moment."""

    source: str
    frames: list[Frame]
    moment: Prediction


@dataclass(slots=True)
class _Watched:
    """What is remembered of one camera."""

    frames: deque[Frame] = field(default_factory=deque)
    size: int = 0
    moment: Prediction | None = None
    is_armed: bool = True
    calm_ns: int | None = None  # since when there has been nothing worth a clip

    def forget(self) -> None:
        self.frames.clear()
        self.size = 0
        self.moment = None


@dataclass(slots=True)
class ClipCounters:
    """What became of the moments.

    Attributes:
        clips: Clips written.
        lost: Clips that were not: the disk was too slow or full, the folder has all it may, or to the end of the
            stream the manifest took no row.
    """

    clips: int = 0
    lost: int = 0


class ClipRecorder:
    """Writes a clip around each moment that is worth one, losslessly, and a row for it; never delays a label.

    A clip has ``BEFORE`` windows before its moment and ``AFTER`` after it, and ends at a cut. A phase without end gives
    one clip: the next one needs a window's time without such a label.

    Args:
        on: Which labels are worth a clip.
        folder: Where clips and ``manifest.csv`` go; it is made.
        model: What the labels come of.
        max_mb: The clips in the folder take at most so many 10^6 bytes.
        lossless: Wait for the disk instead of leaving clips out: for cameras that are recordings themselves.
        clock: Says when a clip was taken.

    Attributes:
        counters: What became of the moments.
        fault: What ended it, one line; None while it works.
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
        self._rows: list[dict[str, str]] = []  # of clips that are written, until the manifest takes them
        self._is_put_off = False
        self._queue: queue.Queue[_Clip | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._run, name="kd-edge clips", daemon=True)

    def open(self) -> None:
        """Make the folder and its manifest, or look at what is there; ``add_camera`` and ``start`` follow.

        Raises:
            ConfigError: It cannot be written, or its manifest is of something else.
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
                "a folder that can be written",
                "another --record-dir",
            ) from error
        if missing := [name for name in (*KEYS, self._model.modality) if name not in columns]:
            raise ConfigError(
                f"{manifest} has no column {', '.join(missing)}",
                f"{','.join(wanted)}",
                "add the columns, or another --record-dir",
            )

    def add_camera(self, name: str, band: Band | None, config: CameraConfig | None, focal: float | None = None) -> None:
        """A camera whose frames are to come."""
        self._watched[name] = _Watched()

    def start(self) -> None:
        """Start to write."""
        self._thread.start()

    def cut(self, source: str, cause: Cause) -> None:
        """Frames before and after are no one clip."""
        self._end(source)

    def frame(self, source: str, frame: Frame) -> None:
        """A frame was pushed; its image must not change any more."""
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
        """A label was given out."""
        watched = self._watched[prediction.source]
        if not _is_worth_it(self._on, prediction):
            watched.calm_ns = prediction.captured_ns if watched.calm_ns is None else watched.calm_ns
            is_calm = prediction.captured_ns - watched.calm_ns >= self._window_ns
            watched.is_armed = watched.is_armed or (watched.moment is None and is_calm)
            return
        watched.calm_ns = None
        if watched.is_armed and watched.frames:
            watched.is_armed, watched.moment = False, prediction

    def _end(self, source: str) -> None:
        """Hand over a clip if there is one, and begin anew."""
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
        """Write what is under way; takes bounded time."""
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
            except BaseException as error:  # whatever breaks a clip, the labels go on
                self._broke(error)
        self._add_last_rows()

    def _next(self) -> _Clip | None:
        """The next clip; while it is waited for, rows that were put off are tried again."""
        while self._rows and self.fault is None:
            with suppress(queue.Empty):
                return self._queue.get(timeout=AGAIN_SECONDS)
            try:
                self._add_rows()
            except BaseException as error:  # as of a clip
                self._broke(error, lost=0)
        return self._queue.get()

    def _add_last_rows(self) -> None:
        """A last try; clips that stay without a row are told by name, and stay."""
        if not self._rows:
            return
        why: BaseException | None = None
        try:
            why = self._add_rows()
        except BaseException as error:  # as of a clip
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
        """The clip as a file, then its row; half a clip does not stay, nor one whose row the disk does not take."""
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
            log.warning("%s has all the clips it may (--record-max-mb)", printable(str(self._folder)))

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
            with suppress(Exception):  # it could not be written, so neither can its end
                writer.close()
            raise

    def _check_room(self, file: BinaryIO) -> None:
        if file.tell() > self._room_bytes:
            raise _NoRoomError

    def _new_clip(self, clip: _Clip) -> tuple[Path, BinaryIO]:
        """A file that was not there, named by camera and time of day."""
        camera = re.sub(r"[^A-Za-z0-9]+", "-", clip.source).strip("-")[:64] or "camera"
        taken = f"{camera}_{self._taken(clip):%Y%m%dT%H%M%S}"
        for number in range(1000):
            path = self._folder / f"{taken}_{number}{ENDING}"
            with suppress(FileExistsError):
                return path, new_file(path)
        raise FileExistsError(17, f"a thousand clips named {taken}")

    def _taken(self, clip: _Clip) -> datetime:
        """The time of day of a clip's moment."""
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
        """Write rows of clips that are there, or put them off.

        Its owner may be at the manifest: hold it, have saved half of it, or be about to put another one in its place.

        Returns:
            Why they were put off; None where they are written.

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
            self._put_off(error)
            return error
        self.counters.clips += len(self._rows)
        self._rows, self._is_put_off = [], False
        return None

    def _put_off(self, error: DataError | FileNotFoundError) -> None:
        if not self._is_put_off:
            self._is_put_off = True
            why = error.found if isinstance(error, DataError) else error.strerror
            log.warning("%s", printable(f"rows of clips in {self._folder} wait: {why}; they are tried again"))


class _NoRoomError(Exception):
    """The folder has all it may."""


def _goes_on(before: Frame, after: Frame) -> bool:
    """Whether two frames belong to one clip."""
    is_near = 0 < after.captured_ns - before.captured_ns <= LONGEST_GAP_NS
    return is_near and before.image.shape == after.image.shape and before.image.dtype == after.image.dtype


def _is_worth_it(on: RecordOn, prediction: Prediction) -> bool:
    if on == "degraded":
        return prediction.state is LabelState.DEGRADED
    if on == "low-confidence":
        return prediction.reason is Reason.LOW_CONFIDENCE
    return prediction.state is LabelState.UNKNOWN


def record_on(text: str) -> RecordOn:
    """What a user wrote after ``--record-on``.

    Raises:
        ConfigError: It is nothing that can be asked for.
    """
    for known in get_args(RecordOn):
        if text == known:
            found: RecordOn = known
            return found
    raise ConfigError(f"--record-on {text}", f"one of {', '.join(get_args(RecordOn))}", "correct it")
