"""The interface between a camera and the stream: open, read with a time-out, close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from kd_edge.artifact import Band, Manifest
from kd_edge.crop import LEAST_FOCAL, MOST_FOCAL, focal_of_view
from kd_edge.errors import CameraError
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.clock import ClockKind
from kd_edge.types import Frame

Dtype = Literal["uint8", "uint16"]
Channels = Literal[1, 3]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the model needs; a camera converts only where this invents nothing (colour to grey).

    Attributes:
        band: Spectral band the camera must deliver.
        dtype: Pixel type.
        channels: 1 for grey or depth, 3 for R, G, B.
    """

    band: Band | None = None
    dtype: Dtype | None = None
    channels: Channels | None = None

    @classmethod
    def by(cls, manifest: Manifest) -> Wanted:
        """The requirements of an artifact."""
        return cls(manifest.band, manifest.dtype, manifest.preprocess.channels)


class Camera(Protocol):
    """A source of stamped frames.

    A custom camera only needs to implement this protocol; plain attributes may replace the properties. Optional
    members:

    - ``timeouts`` (``TimeOuts``): its own time-outs.
    - ``clock_kind`` (``ClockKind``): the clock of its stamps, if not ``time.monotonic_ns``. The clock of a live camera
      is checked with every frame.
    - ``focal``: its focal length as a share of the frame's width, available once it is open.
    - ``on_its_way``: while true, frames of other cameras wait for the frame this camera is about to deliver, so that
      they are labelled in one step.
    - ``interrupt()``: called from another thread when the stream ends; may end ``open`` or ``read`` early.
    """

    @property
    def name(self) -> str:
        """Source name in predictions."""
        ...

    @property
    def band(self) -> Band | None:
        """Spectral band; None if unknown."""
        ...

    @property
    def dtype(self) -> Dtype | None:
        """Pixel type; None before ``open`` if only the device knows."""
        ...

    @property
    def channels(self) -> Channels | None:
        """1 or 3; None before ``open`` if only the device knows."""
        ...

    @property
    def fps(self) -> float | None:
        """Nominal frame rate; None if unknown."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames arrive in real time: late frames are dropped, a silent camera is reopened.

        A recording that is read as fast as possible is not live: every frame is delivered, with the recorded stamps.
        """
        ...

    @property
    def can_vanish(self) -> bool:
        """Whether silence means that the camera is gone and must be reopened; always false for recordings."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the last frame has been read."""
        ...

    def open(self) -> None:
        """Open the camera, or reopen it after ``close``.

        Raises:
            CameraError: The camera is missing, busy, or not as configured.
            DataError: A recording is missing or damaged.
        """
        ...

    def read(self, timeout_seconds: float) -> Frame | None:
        """Return the next frame, or None on a time-out or after the last frame. The caller owns the image.

        Raises:
            BadPictureError: This picture is damaged; the next one may be good.
            CameraError: The camera is gone. Any other exception means the same.
        """
        ...

    def close(self) -> None:
        """Release the device; a second call does nothing."""
        ...


def timeouts_of(camera: Camera) -> TimeOuts:
    """Return the camera's own time-outs, or the defaults.

    Raises:
        CameraError: ``camera.timeouts`` is not a ``TimeOuts``.
    """
    timeouts = getattr(camera, "timeouts", TimeOuts())
    if not isinstance(timeouts, TimeOuts):
        raise CameraError(
            f"camera {camera.name} has timeouts {timeouts!r}",
            "kd_edge.runtime.cameras.TimeOuts",
            "for example timeouts = TimeOuts(read_timeout_ms=500), or leave the attribute out",
        )
    return timeouts


def clock_of(camera: Camera) -> ClockKind:
    """Return the clock that a camera declares for its stamps.

    Raises:
        CameraError: ``camera.clock_kind`` is unknown.
    """
    kind: ClockKind = getattr(camera, "clock_kind", "monotonic")
    if kind not in get_args(ClockKind):
        raise CameraError(
            f"camera {camera.name} has clock_kind {kind!r}", f"one of {', '.join(get_args(ClockKind))}", "correct it"
        )
    return kind


def focal_of(camera: Camera, config: CameraConfig | None = None) -> float | None:
    """Focal length of an open camera as a share of its frame's width; None if unknown.

    Args:
        camera: An open camera, which may know its focal length.
        config: Its configuration, which takes precedence.

    Raises:
        CameraError: ``camera.focal`` is not a valid focal length.
    """
    if config is not None and config.hfov_deg is not None:
        return focal_of_view(config.hfov_deg)
    focal = getattr(camera, "focal", None)
    if focal is not None and not (isinstance(focal, (int, float)) and LEAST_FOCAL < focal <= MOST_FOCAL):
        raise CameraError(
            f"camera {camera.name} has focal {focal!r:.60}",
            f"None, or its focal length as a share of the frame's width, {LEAST_FOCAL:g} to {MOST_FOCAL:g}",
            "correct it, or set hfov_deg in the camera file",
        )
    return focal


def check_fits(camera: Camera, wanted: Wanted) -> None:
    """Refuse a camera whose known properties differ from what the model needs.

    Raises:
        CameraError: Another band, dtype or number of channels.
    """
    for key in ("band", "dtype", "channels"):
        has, needs = getattr(camera, key), getattr(wanted, key)
        if has is not None and needs is not None and has != needs:
            raise CameraError(
                f"camera {camera.name} has {key} {has}",
                f"{key} {needs}, which this model was trained for",
                "use a model for this camera, or another camera or pixel format (kd-edge cameras)",
            )
