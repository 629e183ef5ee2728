"""Records every pushed frame with its stamp, and every label, into one MCAP file."""

from __future__ import annotations

import errno
import json
import logging
import re
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from kd_edge import __version__
from kd_edge.artifact import Band
from kd_edge.errors import ConfigError, KdEdgeError, printable, reason
from kd_edge.files import expanded, new_file
from kd_edge.runtime.cameras.bags import END_KEY, FOCAL_KEY, FORMAT, HASH_KEY, OWN_KEY
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.messages import McapWriter, check_packages, image_message
from kd_edge.runtime.scheduling import at_ease
from kd_edge.runtime.uri import shown
from kd_edge.types import Cause, Frame, LabelState, Prediction, Reason

log = logging.getLogger("kd_edge.runtime")

QUEUE_BYTES = 64_000_000
"""Largest memory of queued items: three seconds of two 640x480 cameras at 30 Hz."""
QUEUE_LENGTH = 4096
LOOK_SECONDS = 0.02
"""Polling interval of the recorder of live cameras: waking it for every frame would cost the label more than anything
else."""
STUCK_SECONDS = 30.0
"""A disk that accepts nothing for this long counts as broken."""
CLOSE_SECONDS = 30.0
"""How long closing waits for queued items."""
CHUNK_FRAMES = 8
"""Frames per chunk: at most this many are lost in a power cut."""
CHUNK_BYTES = (65_536, 4_000_000)
MOST_CHUNKS = 250_000
"""The index is kept in memory until the file ends, 0.6 KB per chunk: 18 hours of one camera at 30 Hz."""
_LABEL_BYTES = 2048  # approximately, with probabilities
_ENCODINGS = {("uint8", 2): "mono8", ("uint16", 2): "mono16", ("uint8", 3): "rgb8", ("uint16", 3): "rgb16"}

_TEXT, _COUNT, _PLAIN = {"type": ["string", "null"]}, {"type": "integer"}, {"type": "string"}
FRAME_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "frame_id": _COUNT,
            "truth": _TEXT,
            "cut": {"type": ["object", "null"], "properties": {"reason": _PLAIN, "detail": _PLAIN}},
            "lost": _COUNT,
        },
    }
)
"""Metadata of each image: frame number, truth, the cut before it, and how many frames before it were not recorded."""
ACTION_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "source": _PLAIN,
            "label": _TEXT,
            "index": _COUNT,
            "confidence": {"type": "number"},
            "state": {"type": "string", "enum": [state.value for state in LabelState]},
            "reason": {"type": "string", "enum": [code.value for code in Reason]},
            "detail": _PLAIN,
            "anomaly": {"type": ["number", "null"]},
            "frame_id": _COUNT,
            "captured_ns": _COUNT,
            "emitted_ns": {"type": ["integer", "null"]},
            "valid_until_ns": _COUNT,
            "truth": _TEXT,
            "probabilities": {"type": "array", "items": {"type": ["number", "null"]}},
        },
    }
)
"""Schema of a label: the row of the jsonl sink."""


@dataclass(slots=True)
class _Source:
    """One camera's topics, and metadata for its next frame."""

    name: str
    image: str
    info: str
    action: str
    about: dict[str, str]
    settings: str
    cut: Cause | None = None
    lost: int = 0
    sequence: int = 0


class _Queued(NamedTuple):
    """A queued frame or label."""

    source: str
    size: int
    frame: Frame | None = None
    cut: Cause | None = None
    lost: int = 0
    label: Prediction | None = None


@dataclass(slots=True)
class RecordingCounters:
    """Counters of frames and labels.

    Attributes:
        frames: Frames written.
        labels: Labels written.
        lost_frames: Frames not written: the disk was too slow or full.
        lost_labels: Labels not written.
    """

    frames: int = 0
    labels: int = 0
    lost_frames: int = 0
    lost_labels: int = 0


class Recorder:
    """Writes a stream's frames and labels in its own thread, and never delays a label.

    If the queue is full, a live camera's frame is dropped and counted. A disk fault ends the recording with one line in
    the log; everything written until then can be read.

    Args:
        path: A new ``.mcap`` file.
        about: Metadata of the whole file: model, engine, settings.
        lossless: Wait for the disk instead of dropping frames: for recordings as cameras.
        clock: Gives the start time.

    Attributes:
        path: The file.
        counters: Counters of frames and labels.
        fault: What ended the recording early, in one line; None while it works.
    """

    def __init__(
        self, path: Path | str, about: Mapping[str, str], *, lossless: bool = False, clock: Clock = MONOTONIC
    ) -> None:
        self.path = expanded(path)
        self.counters = RecordingCounters()
        self.fault: str | None = None
        self._about, self._lossless, self._clock = dict(about), lossless, clock
        self._hashes: Mapping[str, str] = {}
        self._sources: dict[str, _Source] = {}
        self._queue: deque[_Queued] = deque()
        self._queued_bytes = 0
        self._writing: _Queued | None = None
        self._chunks = 0
        self._in_file = (0, 0)  # frames and labels in the file, in complete chunks
        self._changed = threading.Condition()
        self._closing = False
        self._file: BinaryIO | None = None
        self._writer: McapWriter | None = None
        self._thread = threading.Thread(target=self._run, name="kd-edge recorder", daemon=True)

    def open(self) -> None:
        """Create the file; ``add_camera`` and ``start`` follow.

        Raises:
            ConfigError: The file exists or cannot be created.
            MissingExtraError: The packages of the extra ``mcap`` are not installed.
        """
        if self.path.suffix.lower() != ".mcap":
            raise ConfigError(f"recording {self.path}", "a file ending in .mcap", f"--record {self.path}.mcap")
        check_packages()
        self._about |= {
            "started_monotonic_ns": str(self._clock.now_ns()),
            "started_wall_ns": str(self._clock.wall_ns()),
        }
        self._file = _new_file(self.path)

    def add_camera(self, name: str, band: Band | None, config: CameraConfig | None, focal: float | None = None) -> None:
        """Register a camera.

        Args:
            name: Its name in predictions.
            band: Its spectral band; None if unknown.
            config: Its settings; user names and passwords in them are not recorded.
            focal: Focal length as a share of the frame's width; None if unknown.
        """
        topic = self._topic(name)
        settings = {} if config is None else config.model_dump(mode="json", exclude_none=True)
        if config is not None:
            settings["uri"] = shown(config.uri)
        lens = {} if focal is None else {FOCAL_KEY: repr(float(focal))}  # exact: labels depend on it
        self._sources[name] = _Source(
            name=name,
            image=f"{topic}/image",
            info=f"{topic}/frame",
            action=f"{topic}/action",
            about={OWN_KEY: FORMAT, "camera": name, "band": band or "", **lens},
            settings=json.dumps(settings),
        )

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def _topic(self, name: str) -> str:
        """A unique topic name that ROS allows."""
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "camera"
        plain = f"camera_{plain}" if plain[0].isdigit() else plain
        taken = {source.image for source in self._sources.values()}
        number, topic = 1, f"/kd_edge/{plain}"
        while f"{topic}/image" in taken:
            number += 1
            topic = f"/kd_edge/{plain}_{number}"
        return topic

    def cut(self, source: str, cause: Cause) -> None:
        """Note that the window of a source restarted; recorded with its next frame."""
        self._sources[source].cut = cause

    def frame(self, source: str, frame: Frame) -> None:
        """Queue a pushed frame; its image must not change afterwards."""
        state = self._sources[source]
        queued = _Queued(source, frame.image.nbytes + _LABEL_BYTES, frame, state.cut, state.lost)
        if self._put(queued):
            state.cut, state.lost = None, 0
            return
        state.lost += 1
        with self._changed:
            self.counters.lost_frames += 1
        if self.counters.lost_frames == 1 and self.fault is None:
            log.warning("recording %s: the disk is too slow; frames are left out", printable(str(self.path)))

    def label(self, prediction: Prediction) -> None:
        """Queue a label."""
        if not self._put(_Queued(prediction.source, _LABEL_BYTES, label=prediction)):
            with self._changed:
                self.counters.lost_labels += 1

    def _put(self, item: _Queued) -> bool:
        """Queue an item; returns whether there was room."""
        with self._changed:
            if self._lossless and not self._changed.wait_for(lambda: self._has_room(item.size), STUCK_SECONDS):
                self._broke(TimeoutError(f"the disk took nothing for {STUCK_SECONDS:.0f} s"))
            if self.fault is not None or self._closing or not self._has_room(item.size):
                return False
            self._queue.append(item)
            self._queued_bytes += item.size
            if self._lossless:
                self._changed.notify_all()
            return True

    def _has_room(self, size: int) -> bool:
        is_small = self._queued_bytes + size <= QUEUE_BYTES and len(self._queue) < QUEUE_LENGTH
        return is_small or not self._queue or self.fault is not None

    def close(self, hashes: Mapping[str, str] | None = None) -> None:
        """Write queued items and the end of the file; takes bounded time.

        Args:
            hashes: Hash of each source's labels, see ``LabelHash``; stored in the file.
        """
        if self._thread.ident is None:
            self._release()
            return
        with self._changed:
            self._hashes = hashes or {}
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._broke(TimeoutError(f"the disk took nothing for {CLOSE_SECONDS:.0f} s"))

    def _run(self) -> None:
        at_ease()
        try:
            item = self._next()
            self._begin(None if item is None else item.frame)
            while item is not None:
                self._write(item)
                self._writing = None
                if self._chunks >= MOST_CHUNKS:
                    self._finish()
                    raise OSError(errno.EFBIG, "it has reached its maximum length")
                item = self._next()
            self._finish()
        except BaseException as error:  # labels go on whatever ends a recording
            self._broke(error)
        finally:
            try:
                self._release()
            except OSError as error:
                self._broke(error)

    def _next(self) -> _Queued | None:
        with self._changed:
            while not self._changed.wait_for(self._has_work, None if self._lossless else LOOK_SECONDS):
                pass
            if self.fault is not None or not self._queue:
                return None
            self._writing = self._queue.popleft()
            self._queued_bytes -= self._writing.size
            self._changed.notify_all()
            return self._writing

    def _begin(self, first: Frame | None) -> None:
        """Write metadata and topics; a chunk has about ``CHUNK_FRAMES`` frames."""
        if self._file is None:
            return
        frame_bytes = 0 if first is None else first.image.nbytes
        chunk_bytes = max(CHUNK_BYTES[0], min(CHUNK_FRAMES * frame_bytes, CHUNK_BYTES[1]))
        self._writer = McapWriter(self._file, f"kd-edge {__version__}", chunk_bytes)
        self._writer.add_metadata(OWN_KEY, {"format": FORMAT, "version": __version__, **self._about})
        for source in self._sources.values():
            self._writer.add_metadata(f"kd_edge/camera/{source.name}", {**source.about, "settings": source.settings})
            self._writer.add_json(source.info, "kd_edge.Frame", FRAME_SCHEMA, source.about)
            self._writer.add_images(source.image, source.about)
            self._writer.add_json(source.action, "kd_edge.Action", ACTION_SCHEMA, source.about)

    def _has_work(self) -> bool:
        return bool(self._queue) or self._closing or self.fault is not None

    def _write(self, item: _Queued) -> None:
        if self._writer is None:
            return
        source = self._sources[item.source]
        is_in_file = False
        if item.label is not None:
            moment_ns = item.label.captured_ns if item.label.emitted_ns is None else item.label.emitted_ns
            row = json.dumps(item.label.as_dict(), allow_nan=False).encode("ascii")
            is_in_file = self._writer.write(source.action, max(0, moment_ns), row, item.label.frame_id)
            self.counters.labels += 1
        elif item.frame is not None:
            is_in_file = self._write_frame(self._writer, source, item.frame, item.cut, item.lost)
            self.counters.frames += 1
        if is_in_file:
            self._chunks += 1
            self._in_file = self.counters.frames, self.counters.labels

    def _write_frame(self, writer: McapWriter, source: _Source, frame: Frame, cut: Cause | None, lost: int) -> bool:
        """Write a frame's metadata, then the frame, both at its time of capture; returns as ``McapWriter.write``."""
        info = {
            "frame_id": frame.frame_id,
            "truth": frame.truth,
            "cut": None if cut is None else {"reason": cut.reason.value, "detail": cut.detail},
            "lost": lost,
        }
        encoding = _ENCODINGS[frame.image.dtype.name, frame.image.ndim]
        image = image_message(frame.image, encoding, frame.captured_ns, source.name)
        writer.write(source.info, frame.captured_ns, json.dumps(info).encode(), source.sequence)
        source.sequence += 1
        return writer.write(source.image, frame.captured_ns, image, source.sequence - 1)

    def _finish(self) -> None:
        if self._writer is None or self.fault is not None:
            return
        counts = self.counters
        ends = {"frames": counts.frames, "lost_frames": counts.lost_frames, "lost_labels": counts.lost_labels}
        hashes = {f"{HASH_KEY}{name}": value for name, value in self._hashes.items()}
        self._writer.add_metadata(END_KEY, {**{name: str(count) for name, count in ends.items()}, **hashes})
        self._writer.finish()
        self._in_file = counts.frames, counts.labels

    def _broke(self, error: BaseException) -> None:
        """Log a fault once; queued items are lost."""
        text = error.found if isinstance(error, KdEdgeError) else getattr(error, "strerror", None) or reason(error)
        with self._changed:
            is_news, self.fault = self.fault is None, self.fault or printable(str(text))
            lost = [*self._queue, *([] if self._writing is None else [self._writing])]
            frames, labels = self._in_file
            counts = self.counters
            counts.lost_frames += counts.frames - frames + sum(item.frame is not None for item in lost)
            counts.lost_labels += counts.labels - labels + sum(item.label is not None for item in lost)
            counts.frames, counts.labels = frames, labels
            self._queue.clear()
            self._writing = None
            self._changed.notify_all()
        if is_news:
            log.warning(
                "recording %s has stopped: %s; labels go on, and what was written can be replayed",
                printable(str(self.path)),
                self.fault,
            )

    def _release(self) -> None:
        self._writer = None
        if self._file is not None:
            file, self._file = self._file, None
            file.close()


def _new_file(path: Path) -> BinaryIO:
    """Create a new file, readable by the user and group only."""
    try:
        return new_file(path)
    except (OSError, ValueError) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError | ValueError) -> ConfigError:
    if getattr(error, "errno", None) == errno.EEXIST:
        return ConfigError(f"{path} exists already", "a new file for the recording", "choose another name for --record")
    why = getattr(error, "strerror", None) or error
    return ConfigError(f"{path} cannot be recorded to ({why})", "a writable folder with room", "another --record")
