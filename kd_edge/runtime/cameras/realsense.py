"""Intel RealSense infrared through librealsense: one imager of a stereo module, by default with its projector off.

librealsense raises ``RuntimeError`` for everything, waits 15 s for a missing device, and reports an unplugged device as
silence. Therefore devices are looked up before they are opened, waits are short, and removal events are handled.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from kd_edge.artifact import Band
from kd_edge.errors import CameraError, printable, reason
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.cameras.librealsense import focal_of_profile, info, infrared_profiles, is_lit, librealsense
from kd_edge.runtime.clock import ClockKind
from kd_edge.types import Frame, Image

log = logging.getLogger("kd_edge.runtime")

POLL_SECONDS = 0.1
"""Longest single wait in librealsense, which cannot be interrupted."""
SHOWN_PROFILES = 8
EMITTER_MODES = {"off": 0.0, "on": 1.0, "alternating": 1.0}


class RealSenseCamera:
    """One infrared imager of a RealSense device; see ``Camera``.

    Stamps are the device's; librealsense's stamp domains change while it runs, so none is treated as a host clock.
    """

    live = True
    can_vanish = True
    ended = False
    clock_kind: ClockKind = "device"

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted) -> None:
        self.name = name
        self.band: Band | None = config.band or "nir"
        self.dtype: Dtype | None = "uint16" if _format(config, wanted) == "Y16" else "uint8"
        self.channels: Channels | None = 1
        self.fps: float | None = config.fps
        self.focal: float | None = None
        self.timeouts: TimeOuts = config
        self._config, self._format = config, _format(config, wanted)
        self._rs: Any = librealsense()
        self._context: Any = None
        self._pipeline: Any = None
        self._device: Any = None
        self._count = 0
        self._is_removed = False

    def open(self) -> None:
        """Find the device, start its imager and set projector, exposure and gain."""
        self.close()
        try:
            self._context = self._rs.context()
            self._device, self._is_removed = self._found(), False
            self._context.set_devices_changed_callback(self._changed)
            self._start()
            self._set_options()
        except CameraError:
            self.close()
            raise
        except RuntimeError as error:
            self.close()
            raise CameraError(
                f"camera {self.name} cannot be started ({reason(error)})",
                "a RealSense device that no other program uses",
                "end the program that uses it, plug it in again, or another USB port",
            ) from error

    def _start(self) -> None:
        rs, index = self._rs, self._config.index or 1
        self._pipeline, config = rs.pipeline(self._context), rs.config()
        config.enable_device(info(rs, self._device, "serial_number"))
        size = (self._config.width_px or 0, self._config.height_px or 0)
        config.enable_stream(rs.stream.infrared, index, *size, self._rs_format, round(self._config.fps or 0))
        if not config.can_resolve(rs.pipeline_wrapper(self._pipeline)):
            raise self._unknown_profile()
        profile = self._pipeline.start(config).get_stream(rs.stream.infrared, index).as_video_stream_profile()
        self.fps, self.focal = float(profile.fps()), focal_of_profile(profile)

    def read(self, timeout_seconds: float) -> Frame | None:
        """Return the next frame; if the projector alternates, lit frames are skipped."""
        if self._pipeline is None:
            raise self._gone("it is closed")
        end = time.monotonic() + timeout_seconds
        while True:
            if self._is_removed:
                raise self._gone("it was unplugged")
            left = max(end - time.monotonic(), 0.001)
            try:
                arrived, frames = self._pipeline.try_wait_for_frames(round(1e3 * min(left, POLL_SECONDS)) or 1)
                taken = self._taken(frames) if arrived else None
            except RuntimeError as error:
                raise self._gone(reason(error)) from error
            if taken is not None:
                return taken
            if time.monotonic() >= end:
                return None

    def close(self) -> None:
        """Stop the imager and release the device, even if it is gone."""
        if self._pipeline is not None:
            try:
                self._pipeline.stop()
            except RuntimeError as error:
                log.info("camera %s: %s", printable(self.name), printable(reason(error)))
        if self._context is not None:
            self._context.set_devices_changed_callback(lambda event: None)
        self._pipeline = self._device = self._context = None

    @property
    def _rs_format(self) -> Any:
        return self._rs.format.y16 if self._format == "Y16" else self._rs.format.y8

    def _taken(self, frames: Any) -> Frame | None:
        """Return a copy of the imager's frame: if frame sets are kept, the device stops after about fifteen."""
        frame = frames.get_infrared_frame(self._config.index or 1)
        if not frame or self._is_lit(frame):
            return None
        image: Image = np.array(frame.get_data())
        taken = Frame(image, round(frame.get_timestamp() * 1e6), self._count, self.name)
        self._count += 1
        return taken

    def _is_lit(self, frame: Any) -> bool:
        """Whether an alternating projector was on for a frame; False if it does not alternate.

        Raises:
            CameraError: The frame metadata does not include this.
        """
        if self._config.emitter != "alternating":
            return False
        lit = is_lit(self._rs, frame)
        if lit is None:
            raise CameraError(
                f"camera {self.name}: frame metadata do not show whether the projector was on",
                "frame metadata, for emitter = 'alternating'",
                "install librealsense's kernel patches or udev rules, or set emitter = 'off'",
            )
        return lit

    def _found(self) -> Any:
        """Return the device with the requested serial number, or the only one."""
        rs, wanted = self._rs, self._config.target
        devices = sorted(self._context.query_devices(), key=lambda device: info(rs, device, "serial_number"))
        serials = [info(rs, device, "serial_number") for device in devices]
        if not devices:
            raise CameraError(
                f"camera {self.name}: no RealSense device is attached",
                "one on a USB 3 port",
                "plug it in; lsusb -d 8086:; librealsense's udev rules let users open it",
            )
        if wanted and wanted not in serials:
            raise CameraError(
                f"camera {self.name}: no RealSense device with serial number {wanted}",
                f"one of {', '.join(serials)}",
                f"--camera realsense:{serials[0]}",
            )
        if not wanted and len(devices) > 1:
            raise CameraError(
                f"camera {self.name}: {len(devices)} RealSense devices are attached",
                "the serial number of one of them",
                f"--camera realsense:{serials[0]}, or another of {', '.join(serials)}",
            )
        return devices[serials.index(wanted) if wanted else 0]

    def _unknown_profile(self) -> CameraError:
        """Return an error that lists the available profiles."""
        config = self._config
        asked = f"{config.width_px or 'any'}x{config.height_px or 'any'} at {config.fps or 'any'} frames/s"
        profiles = {
            f"{p.width()}x{p.height()} at {p.fps()} ({p.format().name.upper()})"
            for p in infrared_profiles(self._rs, self._device)
        }
        shown = sorted(profiles)[:SHOWN_PROFILES]
        more = f" and {len(profiles) - len(shown)} more" if len(profiles) > len(shown) else ""
        return CameraError(
            f"camera {self.name} has no infrared imager {config.index or 1} of {asked} ({self._format})",
            f"one of {', '.join(shown)}{more}" if shown else "an infrared imager",
            "set width_px, height_px, fps, index and pixel_format to one of them, or leave them out",
        )

    def _set_options(self) -> None:
        """Set the requested options and read them back: devices round values, and some refuse them silently."""
        option, config = self._rs.option, self._config
        emitter = config.emitter or "off"
        sensor = self._device.first_depth_sensor() if self._has_depth else self._device.query_sensors()[0]
        self._set(sensor, option.emitter_enabled, EMITTER_MODES[emitter], "emitter", needed=emitter != "off")
        if emitter == "alternating":
            self._set(sensor, option.emitter_on_off, 1.0, "emitter", needed=True)
        if config.exposure_us is not None or config.gain is not None:
            self._set(sensor, option.enable_auto_exposure, 0.0, "auto exposure", needed=True)
        if config.exposure_us is not None:
            self._set(sensor, option.exposure, config.exposure_us, "exposure_us", needed=True)
        if config.gain is not None:
            self._set(sensor, option.gain, config.gain, "gain", needed=True)

    @property
    def _has_depth(self) -> bool:
        return any(sensor.is_depth_sensor() for sensor in self._device.query_sensors())

    def _set(self, sensor: Any, option: Any, value: float, key: str, *, needed: bool) -> None:
        if not sensor.supports(option):
            if needed:
                raise CameraError(f"camera {self.name} has no {key}", "a device that has it", f"leave {key} out")
            return
        limits = sensor.get_option_range(option)
        if not limits.min <= value <= limits.max:
            raise CameraError(
                f"camera {self.name}: {key} {value:g}", f"{limits.min:g} to {limits.max:g}", f"correct {key}"
            )
        sensor.set_option(option, value)
        granted = sensor.get_option(option)
        if abs(granted - value) > max(limits.step, 0.01 * abs(value)):
            raise CameraError(f"camera {self.name} sets {key} to {granted:g}", f"{value:g}", f"set {key} = {granted:g}")

    def _changed(self, event: Any) -> None:
        """Handle a device change; called by librealsense from its own thread."""
        if self._device is not None and event.was_removed(self._device):
            self._is_removed = True

    def _gone(self, why: str) -> CameraError:
        return CameraError(f"camera {self.name} is gone: {why}", "frames", "check its cable; kd-edge cameras")


def _format(config: CameraConfig, wanted: Wanted) -> str:
    """Return Y8 unless 16 bits are requested or needed: Y16 is the sensor's raw picture, unrectified."""
    return config.pixel_format or ("Y16" if wanted.dtype == "uint16" else "Y8")
