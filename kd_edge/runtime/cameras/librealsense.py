"""Access to librealsense: the only module that imports it; lists devices and the formats of their imagers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from kd_edge.crop import LEAST_FOCAL, MOST_FOCAL
from kd_edge.errors import CameraError, printable, reason
from kd_edge.packages import import_extra
from kd_edge.runtime.cameras.modes import Mode, PixelFormat


class Attached(NamedTuple):
    """A RealSense device.

    Attributes:
        serial: Its serial number.
        description: Model and firmware.
        formats: Formats of its infrared imagers.
    """

    serial: str
    description: str
    formats: tuple[PixelFormat, ...]


def attached() -> list[Attached]:
    """List the attached RealSense devices.

    Raises:
        MissingExtraError: librealsense is not installed, or lacks a system library.
        CameraError: librealsense fails.
    """
    rs = librealsense()
    try:
        return [
            Attached(
                info(rs, device, "serial_number"),
                f"{info(rs, device, 'name')}, firmware {info(rs, device, 'firmware_version') or 'unknown'}",
                _infrared_formats(rs, device),
            )
            for device in rs.context().query_devices()
        ]
    except RuntimeError as error:
        raise CameraError(f"librealsense fails ({reason(error)})", "its devices", "plug them in again") from error


def librealsense() -> Any:
    """Import librealsense.

    Raises:
        MissingExtraError: librealsense is not installed, or lacks a system library.
    """
    return import_extra("pyrealsense2", "realsense")


def is_lit(rs: Any, frame: Any) -> bool | None:
    """Whether the projector was on for a frame; None if its metadata does not include this."""
    mode = rs.frame_metadata_value.frame_laser_power_mode
    return bool(frame.get_frame_metadata(mode)) if frame.supports_frame_metadata(mode) else None


def focal_of_profile(profile: Any) -> float | None:
    """Focal length of an imager as a share of its frame's width; None if unknown or implausible."""
    try:
        lens = profile.get_intrinsics()
    except RuntimeError:  # no calibration
        return None
    focal = float(lens.fx) / lens.width if lens.width else 0.0
    return focal if LEAST_FOCAL < focal <= MOST_FOCAL else None


def infrared_profiles(rs: Any, device: Any) -> Iterator[Any]:
    """Every profile of every infrared imager of a device."""
    for sensor in device.query_sensors():
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() == rs.stream.infrared:
                yield profile.as_video_stream_profile()


def _infrared_formats(rs: Any, device: Any) -> tuple[PixelFormat, ...]:
    """The formats of all imagers together; they usually have the same ones."""
    rates: dict[str, dict[tuple[int, int], set[float]]] = {}
    for p in infrared_profiles(rs, device):
        sizes = rates.setdefault(p.format().name.upper(), {})
        sizes.setdefault((p.width(), p.height()), set()).add(float(p.fps()))
    return tuple(
        PixelFormat(
            name,
            "infrared",
            tuple(Mode(*size, tuple(sorted(fps, reverse=True))) for size, fps in sorted(sizes.items(), reverse=True)),
        )
        for name, sizes in sorted(rates.items(), reverse=True)
    )


def info(rs: Any, device: Any, key: str) -> str:
    """Return a device's information, for example ``serial_number``; empty if not available."""
    kind = getattr(rs.camera_info, key)
    return printable(device.get_info(kind)) if device.supports(kind) else ""
