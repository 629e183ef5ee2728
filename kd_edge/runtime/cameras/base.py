"""What a camera is to the stream: open, read with a time-out, close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from kd_edge.artifact import Band, Manifest
from kd_edge.errors import CameraError
from kd_edge.types import Frame

Dtype = Literal["uint8", "uint16"]
Channels = Literal[1, 3]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the model needs; a camera converts where nothing is invented by it (colour to grey), never otherwise.

    Attributes:
        band: What the camera must see.
        dtype: Of the frames.
        channels: Of the frames.
    """

    band: Band | None = None
    dtype: Dtype | None = None
    channels: Channels | None = None

    @classmethod
    def by(cls, manifest: Manifest) -> Wanted:
        """What an artifact needs."""
        return cls(manifest.band, manifest.dtype, manifest.preprocess.channels)


class Camera(Protocol):
    """A source of frames with monotonic stamps.

    Attributes:
        name: Names the source in predictions.
        band: What it sees; None when not known.
        dtype: Of its frames; None before ``open`` where only the device knows.
        channels: Likewise.
        fps: Nominal frame rate; None when not known.
        live: Whether time goes on by itself: late frames are dropped, a silent camera is reopened. A recording that is
            read as fast as possible is not live: every frame is handed over, stamps are the recording's.
        can_vanish: Whether silence means that it is gone and must be reopened; never so for recordings.
        ended: Whether the last frame has been read.
    """

    name: str
    band: Band | None
    dtype: Dtype | None
    channels: Channels | None
    fps: float | None
    live: bool
    can_vanish: bool
    ended: bool

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
            CameraError: The camera is gone.
        """
        ...

    def close(self) -> None:
        """Release the device; a second call does nothing."""
        ...


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
