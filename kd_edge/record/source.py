"""A camera being recorded: opening it, determining its properties, and monitoring it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from kd_edge.errors import CameraError, ConfigError, printable
from kd_edge.record.events import CameraStatus
from kd_edge.record.folder import CameraFacts, band_seen, column
from kd_edge.record.track import Track
from kd_edge.runtime.cameras import Wanted, make_camera
from kd_edge.runtime.cameras.base import Camera, focal_of, timeouts_of
from kd_edge.runtime.cameras.config import CameraConfig, camera_config, source_name
from kd_edge.runtime.capture import Capture, stop_together
from kd_edge.runtime.clock import Clock, duration
from kd_edge.runtime.uri import shown
from kd_edge.types import Frame, Reason

FIRST_FRAME_SECONDS = 10.0
"""A camera that delivers no frame for so long after opening is an error."""
LATE_SECONDS = 1.0
"""How long the end of a clip waits for late frames, and how long after its time-out a camera counts as lost."""
FIRST_LOOK_SECONDS = 0.01
"""Polling interval while waiting for the first frame."""


class Source:
    """A camera, its configuration, and the thread that reads it once it has been started.

    Args:
        camera: The camera, not opened yet.
        name: Name given by the user; None names its column after its band.
        clock: Source of time.
        config: Configuration of a camera given by name or URI.
        uri: Its URI for display; empty for a custom camera object.

    Attributes:
        name: As given.
        uri: As given.
        track: Receives its frames; set by ``start``.
        capture: Reads the camera; set by ``start``.
    """

    track: Track
    capture: Capture

    def __init__(
        self, camera: Camera, name: str | None, clock: Clock, config: CameraConfig | None = None, uri: str = ""
    ) -> None:
        self.name, self.uri = name, uri
        self._camera, self._clock, self._config = camera, clock, config
        self._is_open = False

    def start(self) -> None:
        """Open the camera and start reading it, for the first time or after ``stop_all``.

        Raises:
            CameraError: The camera cannot be opened.
            ConfigError: The camera is not live.
        """
        self._camera.open()
        self._is_open = True
        self.track = Track(self._camera.name)  # some cameras know their name only now
        self.capture = Capture(self._camera, timeouts_of(self._camera), self._clock, mailbox=self.track)
        if not self._camera.live:
            raise ConfigError(
                f"camera {printable(self._camera.name)} is not live",
                "a camera that delivers frames in real time",
                "remove realtime=false",
            )
        self.capture.start()

    def facts(self) -> CameraFacts:
        """Wait for the first frame and return the properties of the camera.

        Raises:
            CameraError: No frame arrived.
        """
        frame = self._first()
        height, width = frame.image.shape[:2]
        dtype, channels = str(frame.image.dtype), 1 if frame.image.ndim == 2 else 3
        band = band_seen(self.name, self._camera.band, dtype, channels)
        focal = focal_of(self._camera, self._config)
        return CameraFacts(column(self.name, band), band, dtype, channels, width, height, self.uri, focal)

    def _first(self) -> Frame:
        until_ns = self._clock.now_ns() + round(FIRST_FRAME_SECONDS * 1e9)
        while self.track.first is None:
            if self.capture.error is not None:
                raise self.capture.error
            if self.capture.ended or self._clock.now_ns() > until_ns:
                why = "" if self.capture.trouble is None else f": {self.capture.trouble.detail}"
                raise CameraError(
                    f"camera {printable(self._camera.name)} delivers no frame{why}",
                    "frames",
                    "run kd-edge cameras doctor",
                )
            self._clock.sleep(FIRST_LOOK_SECONDS)
        return self.track.first

    def lost(self) -> str:
        """Why it does not deliver frames; empty if it does."""
        trouble, last_ns = self.capture.trouble, self.track.last_ns
        if trouble is not None and trouble.reason in (Reason.CAMERA_LOST, Reason.FROZEN):
            return trouble.detail
        patience_ns = timeouts_of(self._camera).read_timeout_ms * 1_000_000 + LATE_SECONDS * 1e9
        if last_ns is not None and self._clock.now_ns() - last_ns > patience_ns:
            return f"no frame for {duration(round(patience_ns))}"
        return ""

    def status(self) -> CameraStatus:
        """Return its current state."""
        track, trouble = self.track, self.capture.trouble
        age_ms = 0.0 if track.last_ns is None else (self._clock.now_ns() - track.last_ns) / 1e6
        why = "" if trouble is None else trouble.detail
        return CameraStatus(track.frames, track.fps, self.capture.counters.dropped, age_ms, why)

    def _close_unread(self) -> None:
        """Close a camera that was opened but has no reading thread, which would close it."""
        if self._is_open and not hasattr(self, "capture"):
            with suppress(Exception):
                self._camera.close()


def make_sources(cameras: Sequence[str] | Mapping[str, Camera], clock: Clock) -> list[Source]:
    """Make the sources of cameras, without opening them.

    Args:
        cameras: Names or URIs, ``NAME=CAMERA`` to name one; or custom camera objects, by name.
        clock: Source of time.

    Raises:
        ConfigError: There is no camera, a camera is given twice, or a name cannot be a column of a manifest.
    """
    if isinstance(cameras, Mapping):
        found = [Source(camera, name, clock) for name, camera in cameras.items()]
    else:
        found = [_source(asked, clock) for asked in cameras]
    if not found:
        raise ConfigError("no camera", "at least one", "name one; kd-edge cameras lists them")
    for kind, values in (("called", [s.name for s in found]), ("at", [s.uri for s in found])):
        if twice := next((value for value in values if value and values.count(value) > 1), None):
            raise ConfigError(f"two cameras {kind} '{printable(twice)}'", "each camera once", "correct --camera")
    for source in found:
        if source.name is not None:
            column(source.name, "rgb")
    return found


def _source(asked: str, clock: Clock) -> Source:
    config = camera_config(asked)
    name, camera = source_name(asked)
    is_named = name != camera or ":" not in name
    is_grey = config.band in ("nir", "lwir", "depth")
    wanted = Wanted(channels=1) if is_grey else Wanted()
    made = make_camera(name, config, wanted, realtime=True, clock=clock)
    called = name.removesuffix(".toml").rpartition("/")[2] if is_named else None
    return Source(made, called, clock, config, shown(config.uri))


def stop_all(sources: Sequence[Source]) -> None:
    """Stop all sources together, in bounded time."""
    stop_together([source.capture for source in sources if hasattr(source, "capture")])
    for source in sources:
        source._close_unread()
