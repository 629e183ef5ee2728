"""What a camera is to the stream: open, read with a time-out, close."""

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
    """What the model needs; a camera converts where nothing is invented by it (colour to grey), never otherwise.

    Attributes:
        band: What the camera must see.
        dtype: Type of its pixels.
        channels: 1 for grey or depth, 3 for R, G, B.
    """

    band: Band | None = None
    dtype: Dtype | None = None
    channels: Channels | None = None

    @classmethod
    def by(cls, manifest: Manifest) -> Wanted:
        """What an artifact needs."""
        return cls(manifest.band, manifest.dtype, manifest.preprocess.channels)


class Camera(Protocol):
    """A source of frames with stamps.

    A camera of one's own needs no more than this. With an attribute ``timeouts`` (``TimeOuts``) it brings its own, with
    an attribute ``clock_kind`` (``ClockKind``) it says what it stamps with, unless that is ``time.monotonic_ns``, with
    an attribute ``focal`` once it is open its focal length as a share of the frame's width. The clock of a live camera
    is checked with every frame. While an attribute ``on_its_way`` is true, frames of other cameras wait for the one
    that it is about to hand over, to be labelled in one step with it. A method ``interrupt()``, called from another
    thread, may end ``open`` or ``read`` early: the stream is being left. Plain attributes will do for the properties.
    """

    @property
    def name(self) -> str:
        """Names the source in predictions."""
        ...

    @property
    def band(self) -> Band | None:
        """What it sees; None when not known."""
        ...

    @property
    def dtype(self) -> Dtype | None:
        """Type of its pixels; None before ``open`` where only the device knows."""
        ...

    @property
    def channels(self) -> Channels | None:
        """1 or 3; None before ``open`` where only the device knows."""
        ...

    @property
    def fps(self) -> float | None:
        """Nominal frame rate; None when not known."""
        ...

    @property
    def live(self) -> bool:
        """Whether time goes on by itself: late frames are dropped, a silent camera is reopened.

        A recording that is read as fast as possible is not live: every frame is handed over, stamps are the
        recording's.
        """
        ...

    @property
    def can_vanish(self) -> bool:
        """Whether silence means that it is gone and must be reopened; never so for recordings."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the last frame has been read."""
        ...

    def open(self) -> None:
        """Open, or reopen after ``close``.

        Raises:
            CameraError: Not there, busy, or not what was configured.
            DataError: A recording is absent or damaged.
        """
        ...

    def read(self, timeout_seconds: float) -> Frame | None:
        """The next frame; None when none came in time or after the last one. The image is the caller's.

        Raises:
            BadPictureError: This picture is damaged; the next one may be good.
            CameraError: The camera is gone. Any other exception means the same.
        """
        ...

    def close(self) -> None:
        """Release the device; a second call does nothing."""
        ...


def timeouts_of(camera: Camera) -> TimeOuts:
    """The time-outs a camera brings, or the usual ones.

    Raises:
        CameraError: ``camera.timeouts`` is something else.
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
    """What a camera says it stamps with.

    Raises:
        CameraError: ``camera.clock_kind`` is nothing known.
    """
    kind: ClockKind = getattr(camera, "clock_kind", "monotonic")
    if kind not in get_args(ClockKind):
        raise CameraError(
            f"camera {camera.name} has clock_kind {kind!r}", f"one of {', '.join(get_args(ClockKind))}", "correct it"
        )
    return kind


def focal_of(camera: Camera, config: CameraConfig | None = None) -> float | None:
    """Focal length of an open camera as a share of its frame's width; None where nobody says it.

    Args:
        camera: May know it.
        config: What the user says about it, which counts more.

    Raises:
        CameraError: ``camera.focal`` is something else.
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
    """Refuse a camera that differs from what the model needs, where that is known.

    Raises:
        CameraError: Another band, dtype or number of channels.
    """
    for what in ("band", "dtype", "channels"):
        has, needs = getattr(camera, what), getattr(wanted, what)
        if has is not None and needs is not None and has != needs:
            raise CameraError(
                f"camera {camera.name} has {what} {has}",
                f"{what} {needs}, which this model was trained for",
                "use a model for this camera, or another camera or pixel format (kd-edge cameras)",
            )
