"""A camera that is recorded: opened, asked what it is, and watched while its frames go to the clips."""

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
"""A camera that is open and gives no frame for so long is none."""
LATE_SECONDS = 1.0
"""How long the end of a clip waits for frames on their way, and how late one may be beyond its time-out."""
FIRST_LOOK_SECONDS = 0.01
"""How often the first frame is looked for."""


class Source:
    """A camera, what its user says about it, and the thread that reads it once it has been started.

    Args:
        camera: Not open yet.
        name: What the user calls it; None: its column is called after its band.
        clock: Tells the time.
        config: Of a camera that was named or is a URI.
        uri: How it is shown; empty for a camera of one's own.

    Attributes:
        name: As given.
        uri: As given.
        track: Takes its frames; there is none before ``start``.
        capture: Reads them; there is none before ``start``.
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
        """Open the camera and begin to read it, for the first time or after ``stop_all``.

        Raises:
            CameraError: It cannot be opened.
            ConfigError: It is not live.
        """
        self._camera.open()
        self._is_open = True
        self.track = Track(self._camera.name)  # some cameras know their name only now
        self.capture = Capture(self._camera, timeouts_of(self._camera), self._clock, mailbox=self.track)
        if not self._camera.live:
            raise ConfigError(
                f"camera {printable(self._camera.name)} is not live",
                "frames that come by themselves",
                "take realtime=false out",
            )
        self.capture.start()

    def facts(self) -> CameraFacts:
        """What its first frame tells, which is waited for.

        Raises:
            CameraError: None came.
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
                    f"camera {printable(self._camera.name)} gives no frame{why}", "frames", "kd-edge cameras doctor"
                )
            self._clock.sleep(FIRST_LOOK_SECONDS)
        return self.track.first

    def lost(self) -> str:
        """Why it does not deliver; empty while it does."""
        trouble, last_ns = self.capture.trouble, self.track.last_ns
        if trouble is not None and trouble.reason in (Reason.CAMERA_LOST, Reason.FROZEN):
            return trouble.detail
        patience_ns = timeouts_of(self._camera).read_timeout_ms * 1_000_000 + LATE_SECONDS * 1e9
        if last_ns is not None and self._clock.now_ns() - last_ns > patience_ns:
            return f"no frame for {duration(round(patience_ns))}"
        return ""

    def status(self) -> CameraStatus:
        """How it goes at the moment."""
        track, trouble = self.track, self.capture.trouble
        age_ms = 0.0 if track.last_ns is None else (self._clock.now_ns() - track.last_ns) / 1e6
        why = "" if trouble is None else trouble.detail
        return CameraStatus(track.frames, track.fps, self.capture.counters.dropped, age_ms, why)

    def _close_unread(self) -> None:
        """Close a camera that was opened and that nothing reads: a thread that does closes it by itself."""
        if self._is_open and not hasattr(self, "capture"):
            with suppress(Exception):
                self._camera.close()


def make_sources(cameras: Sequence[str] | Mapping[str, Camera], clock: Clock) -> list[Source]:
    """Sources of cameras that are not open yet.

    Args:
        cameras: Names or URIs, ``NAME=CAMERA`` to give one a name; or cameras of one's own, by name.
        clock: Tells the time.

    Raises:
        ConfigError: No camera, one twice, or a name that cannot be a column of a manifest.
    """
    if isinstance(cameras, Mapping):
        found = [Source(camera, name, clock) for name, camera in cameras.items()]
    else:
        found = [_source(asked, clock) for asked in cameras]
    if not found:
        raise ConfigError("no camera", "at least one", "name one: kd-edge cameras shows them")
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
    """Stop them together, in bounded time."""
    stop_together([source.capture for source in sources if hasattr(source, "capture")])
    for source in sources:
        source._close_unread()
