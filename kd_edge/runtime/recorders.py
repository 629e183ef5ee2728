"""Recorders of a stream: the recording, clips to be labelled, and the hash of its labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kd_edge.artifact import Manifest
from kd_edge.runtime.cameras.base import Camera, focal_of
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.clip_recorder import MAX_MB, ClipCounters, ClipRecorder, RecordOn
from kd_edge.runtime.clock import Clock
from kd_edge.runtime.label_hash import LabelHash
from kd_edge.runtime.recording import Recorder, RecordingCounters
from kd_edge.types import Cause, Frame, Prediction


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stream records.

    Attributes:
        record: New ``.mcap`` file for every frame and label.
        record_on: Which labels are recorded as clips.
        record_dir: Folder of the clips.
        record_max_mb: Their largest total size, in units of 10^6 bytes.
        lossless: Wait for the disk instead of dropping anything: for recordings as cameras.
    """

    record: Path | str | None = None
    record_on: RecordOn | None = None
    record_dir: Path | str | None = None
    record_max_mb: float = MAX_MB
    lossless: bool = False


@dataclass
class Keeping:
    """Passes the events of a stream to its recorders; none of the hooks delays a label.

    Attributes:
        label_hash: Hash of the labels of recordings, or of cameras being recorded; None otherwise.
    """

    recorder: Recorder | None = None
    clips: ClipRecorder | None = None
    label_hash: LabelHash | None = None
    _all: list[Recorder | ClipRecorder] = field(default_factory=list)

    @classmethod
    def of(cls, kept: Kept, manifest: Manifest, about: dict[str, str], clock: Clock) -> Keeping:
        """Create the recorders, not open yet.

        Args:
            kept: What to record.
            manifest: Manifest of the model.
            about: Further metadata: engine, threads, settings.
            clock: The stream's clock.
        """
        made = cls()
        if kept.record is not None:
            described = {"model": manifest.name, "model_sha256": manifest.sha256, **about}
            made.recorder = Recorder(kept.record, described, lossless=kept.lossless, clock=clock)
            made._all.append(made.recorder)
        if kept.record_on is not None and kept.record_dir is not None:
            made.clips = ClipRecorder(
                kept.record_on,
                kept.record_dir,
                manifest,
                max_mb=kept.record_max_mb,
                lossless=kept.lossless,
                clock=clock,
            )
            made._all.append(made.clips)
        made.label_hash = LabelHash() if kept.lossless or made.recorder is not None else None
        return made

    def open(self, cameras: Iterable[tuple[Camera, CameraConfig | None]]) -> None:
        """Open all recorders; call ``close`` even if this fails.

        Raises:
            ConfigError: A file or folder cannot be written.
            MissingExtraError: The packages for it are not installed.
        """
        named = list(cameras)
        for one in self._all:
            one.open()
            for camera, config in named:
                one.add_camera(camera.name, camera.band, config, focal_of(camera, config))
            one.start()

    def close(self) -> None:
        """Close all recorders; takes bounded time."""
        for one in self._all:
            one.close(None if self.label_hash is None else self.label_hash.by_source)

    def cut(self, source: str, cause: Cause) -> None:
        """The window of a source was restarted."""
        for one in self._all:
            one.cut(source, cause)

    def frame(self, source: str, frame: Frame) -> None:
        """A frame was pushed; its image must not change afterwards."""
        for one in self._all:
            one.frame(source, frame)

    def answer(self, prediction: Prediction) -> None:
        """The recogniser gave a prediction, which may still become stale."""
        if self.label_hash is not None:
            self.label_hash.add(prediction)

    def label(self, prediction: Prediction) -> None:
        """A prediction was returned to the caller."""
        for one in self._all:
            one.label(prediction)

    @property
    def frames(self) -> RecordingCounters:
        """Counters of the recording."""
        return RecordingCounters() if self.recorder is None else self.recorder.counters

    @property
    def moments(self) -> ClipCounters:
        """Counters of the clips."""
        return ClipCounters() if self.clips is None else self.clips.counters

    @property
    def fault(self) -> str:
        """What ended a recorder early; empty if nothing did."""
        return next((one.fault for one in self._all if one.fault is not None), "")
